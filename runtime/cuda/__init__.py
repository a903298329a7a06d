"""Layers on CUDA devices: opening devices, moving weights to them, and the operator's way there."""
