"""Weights in the order in which the kernels stream them."""
