"""The CPU backend: kernel-level `moe` operations to one shared library, through MLIR's vector and LLVM dialects."""
