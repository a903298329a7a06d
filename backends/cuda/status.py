"""A sequence of steps of generated code that ends at the first that fails."""

from __future__ import annotations

from collections.abc import Callable

from moec.backends.cpu.builder import Builder
from moec.backends.cpu.values import Value


class Status:
    """`value` is the status so far: 0 until a step gives another."""

    def __init__(self, b: Builder) -> None:
        self.b = b
        self.value = b.constant(b.i32, 0)

    def then(self, step: Callable[[], Value]) -> None:
        """Runs a step, which gives a status, if all was well before."""
        so_far = self.value
        self.value = self.b.choose(so_far.equals(0), [self.b.i32], lambda: [step()], lambda: [so_far])[0]
