"""What is asked of torch about CUDA devices."""

from __future__ import annotations

import torch


def current_stream(index: int) -> int:
    """The handle of torch's current stream on a device."""
    return torch.cuda.current_stream(index).cuda_stream


def is_capturing() -> bool:
    """Whether what is launched now goes into a CUDA graph."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def describe(index: int) -> str:
    """A device's name and compute capability, for messages."""
    major, minor = torch.cuda.get_device_capability(index)
    return f"{torch.cuda.get_device_name(index)} (compute capability {major}.{minor})"


def argument(tensor: torch.Tensor) -> object:
    """A tensor as native code takes it."""
    return tensor
