"""Compares what every kernel of a call wrote with what its own inputs make of it.

So a kernel that is wrong is named, and those that read its results are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from bench.cuda.steps.call import Call
from bench.cuda.steps.record import Kernel
from bench.cuda.steps.scalars import NoReference, Tensor
from bench.cuda.steps.wanted import Pair, Unwritten, of_buffer, of_value

_ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 2e-5}
_SUMS = {torch.bfloat16: 2e-3, torch.float16: 5e-4, torch.float32: 2e-5}
"""Of a row's typical element: what sums in another order and approximated exponentials make."""


@dataclass(frozen=True)
class Finding:
    """A result of a kernel.

    what   the value's name or the operation that it is the result of, or the buffer
    worst  the largest difference, in units of what is allowed; above 1 it is wrong
    note   why nothing was compared, or where the worst is
    """

    kernel: str
    what: str
    worst: float
    note: str = ""

    @property
    def wrong(self) -> bool:
        return self.worst > 1


def check(call: Call) -> list[Finding]:
    """Every result of every kernel that the call launched, in order."""
    return [finding for kernel in call.kernels for finding in _of_kernel(call, kernel)]


def _of_kernel(call: Call, kernel: Kernel) -> Iterator[Finding]:
    for value in kernel.values:
        maker = call.function.makers[value]
        number = maker.results.index(value)
        name = call.function.values[value].name or f"{maker.name}#{number}"
        yield _compared(kernel, name, partial(of_value, call, kernel, value))
    for area in kernel.areas:
        name = call.code.areas[area].buffer or "?"
        yield _compared(kernel, name, partial(of_buffer, call, kernel, area))


def _compared(kernel: Kernel, name: str, pair: Callable[[], Pair]) -> Finding:
    try:
        found, wanted, rows = pair()
    except NoReference as why:
        return Finding(kernel.name, name, float("inf"), f"there is no reference for {why}")
    except Unwritten:
        return Finding(kernel.name, name, float("inf"), "a part of it is left unwritten")
    worst, at = difference(found, wanted)
    return Finding(kernel.name, name, worst, f"at {[int(rows[at[0]]), *at[1:]]}" if at is not None else "")


def difference(found: Tensor, wanted: Tensor) -> tuple[float, list[int] | None]:
    """The largest difference in units of what is allowed, and where; NaN is only right where NaN is wanted."""
    if found.shape != wanted.shape:
        return float("inf"), None
    if not found.numel():
        return 0.0, None
    if found.is_floating_point():
        exact = found.double()
        size = wanted.abs().reshape(len(wanted), -1).nan_to_num(0.0, 0.0, 0.0)
        typical = size.square().mean(1).sqrt()
        typical = typical + 1e-2 * size.square().mean().sqrt()
        allowed = _ROUNDING[found.dtype] * wanted.abs() + (
            _SUMS[found.dtype] * typical.reshape(-1, *(1 for _ in wanted.shape[1:])) + 1e-30
        )
        off = (exact - wanted).abs() / allowed
        off = torch.where((exact == wanted) | (exact.isnan() & wanted.isnan()), 0.0, off).nan_to_num(float("inf"))
    else:
        off = torch.where(found.long() == wanted.long(), 0.0, float("inf"))
    flat = int(off.reshape(-1).argmax())
    at = [int(one) for one in torch.unravel_index(torch.tensor(flat), off.shape)]
    return float(off.reshape(-1)[flat]), at
