"""Traffic that changes while it runs, and how much a layer that follows it gains."""
