"""Checks and measures CUDA artifacts on a GPU, beside what else computes the same layer there: `bench/gpu.py`."""
