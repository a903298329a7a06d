"""Measures moec beside PyTorch and beside what the machine can do at best: `python -m bench --help`."""
