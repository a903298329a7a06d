"""Loads and layouts: what a layer meets, and how it may follow that while it runs."""
