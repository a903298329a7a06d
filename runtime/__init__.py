"""Runs compiled layers: loading, the `nn.Module`, packed weights, the torch operator.

Needs torch, NumPy and tvm-ffi; imports nothing of the compiler.
"""
