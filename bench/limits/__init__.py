"""What this machine can do at best: f32, bf16 and int8 arithmetic, and reading from memory."""

from bench.limits.probe import Limits, Prober

__all__ = ["Limits", "Prober"]
