"""Grouped and dense matmuls with epilogues as CUDA kernels."""
