"""The CUDA backend: kernel-level modules to CUDA C++, compiled ahead of time for every architecture asked for."""
