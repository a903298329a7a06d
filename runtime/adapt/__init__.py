"""The layer follows its load: statistics of calls, policies, and variants that are swapped in between calls."""
