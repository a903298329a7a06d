"""What every microkernel is given, and the sums that it starts with and leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch_mlir import ir

from moec.backends.cpu.builder import Builder
from moec.backends.cpu.values import Pointer, Value


class KernelArguments(NamedTuple):
    """The arguments of `microkernel.kernel`, in order."""

    rows: Pointer
    weights: Pointer
    steps: Value
    accumulators: Pointer
    resume: Value
    """i1: whether to go on from what the accumulators hold."""
    weights_ahead: Pointer
    weights_stride: Value
    rows_ahead: Pointer
    rows_stride: Value
    pace: Value
    run: Value

    def first_sums(self, b: Builder, type_: ir.Type, places: Sequence[Pointer], width: int) -> list[Value]:
        """Zeros, or what lies at `places`, each a vector of `width` bytes."""
        return b.choose(
            self.resume,
            [type_] * len(places),
            lambda: [place.load(type_, align=width) for place in places],
            lambda: [b.splat(type_, 0)] * len(places),
        )
