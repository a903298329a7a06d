"""Compares what every kernel of a call wrote with what its own inputs make of it.

So a kernel that is wrong is named, and those that read its results are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from bench.cuda.steps.call import Call, typed
from bench.cuda.steps.operations import sorted_slots
from bench.cuda.steps.record import Kernel
from bench.cuda.steps.scalars import NoReference, Tensor

Pair = tuple[Tensor, Tensor, Tensor]
"""What was found, what is wanted, and the rows that were picked."""

_ROWS = 4096
"""So many rows of a result are compared, the first and the last among them."""
_PARTIAL = re.compile(r"partial sums, (\d+) of (\d+) of (\d+) rows")
_STEP = 64
"""Elements of the inner dimension that blocks which share it divide."""
_BLOCKS = 128
"""Blocks that share the slots of a call with many."""
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
        yield _compared(kernel, name, partial(_value, call, value))
    for area in kernel.areas:
        name = call.code.areas[area].buffer or "?"
        yield _compared(kernel, name, partial(_buffer, call, area))


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


class Unwritten(Exception):
    """A result holds NaN where nothing explains it."""


def _sample(found: Tensor, wanted: Tensor, picked: Tensor) -> Pair:
    """Rows of a whole result, of which the others are looked at, too: whether they were written."""
    if len(picked) < len(found) and found.is_floating_point() and found.isnan().any() and not wanted.isnan().any():
        raise Unwritten
    return found[picked], wanted, picked


def _picked(count: int, device: torch.device) -> Tensor:
    if count <= _ROWS:
        return torch.arange(count, device=device)
    ends = torch.tensor([0, count - 1], device=device)
    picked: Tensor = torch.cat((torch.randperm(count, device=device)[:_ROWS], ends)).unique()
    return picked


def _value(call: Call, value: int) -> Pair:
    found, maker = call.read(value), call.function.makers[value]
    count = len(found)
    if maker.name == "moe.grouped_matmul":
        count = _rows(call, maker.operands[1])
    picked = _picked(count, found.device)
    if maker.name.endswith("weight_gradient") and count > 4:
        picked = torch.tensor(sorted({0, count // 3, count // 2, count - 1}), device=found.device)
    if maker.name == "moe.grouped_matmul_combine":
        return _sample(found, _combined(call, value, picked), picked)
    if maker.name == "moe.slot_values":
        return _sample(found, _by_slot(call, value, picked), picked)
    partial = _partial(call, maker.results[0])
    if partial is not None:
        made = call.reference.products(maker, picked, list(partial.double().sum(0)[:, picked]))
        return _sample(found[:count], made[maker.results.index(value)], picked)
    wanted = call.reference.rows(maker, value, picked)
    if maker.name == "moe.plan":
        count = len(wanted)
        picked = torch.arange(len(wanted), device=found.device)
    return _sample(found[:count], wanted, picked)


def _rows(call: Call, offsets: int) -> int:
    """How many rows a plan has."""
    return int(call.read(offsets)[-1])


def _combined(call: Call, value: int, tokens: Tensor) -> Tensor:
    """The sum of each token's rows, as the kernel found them, and its finish."""
    maker = call.function.makers[value]
    columns, per_token = call.shape(value)[1], int(maker.attributes["slots_per_token"])
    rows = call.buffer("rows", value)
    if rows is None:
        raise NoReference(maker.name)
    lhs = call.function.values[maker.operands[0]].dtype
    table = typed(rows, lhs).reshape(-1, columns)
    place = _places(call, maker.segments()[-3][0]).reshape(-1, per_token)[tokens]
    terms = torch.where((place >= 0)[..., None], table[place.clamp(min=0)].double(), 0.0)
    return call.reference.finished(maker, terms.sum(1), tokens)


def _partial(call: Call, value: int) -> Tensor | None:
    """Sums [splits, products, rows, columns] over parts of the inner dimension, where this call made some."""
    for kernel in call.kernels:
        for number in kernel.areas:
            area, raw = call.area(number)
            sizes = _PARTIAL.fullmatch(area.buffer or "") if area.value == value else None
            if sizes is not None:
                splits, products, rows = map(int, sizes.groups())
                return typed(raw, "f32").reshape(splits, products, rows, -1)
    return None


def _places(call: Call, offsets: int) -> Tensor:
    """The row of each flat slot, as kernels found it; -1 for empty ones."""
    found = call.buffer("rows_of_slots", offsets)
    if found is None:
        raise NoReference("rows_of_slots")
    return typed(found, "i32").long()


def _by_slot(call: Call, value: int, tokens: Tensor) -> Tensor:
    """A row's value where its slot is; 0 for empty slots."""
    maker = call.function.makers[value]
    plan = call.function.makers[maker.operands[1]]
    place = _places(call, plan.results[0]).reshape(-1, call.shape(value)[1])[tokens]
    values = call.read(maker.operands[0]).double().reshape(-1)
    return torch.where(place >= 0, values[place.clamp(min=0)], 0.0)


def _buffer(call: Call, number: int) -> Pair:
    area, raw = call.area(number)
    value = area.value if area.value is not None else -1
    maker = call.function.makers.get(value)
    if area.buffer == "rows" and maker is not None:
        count = _rows(call, maker.segments()[-3][0])
        picked = _picked(count, raw.device)
        table = typed(raw, call.function.values[maker.operands[0]].dtype).reshape(-1, call.shape(value)[1])
        partial = _partial(call, value)
        sums = None if partial is None else list(partial.double().sum(0)[:, picked])
        (wanted,) = call.reference.products(maker, picked, sums)
        return _sample(table[:count], wanted, picked)
    if area.buffer == "rows_of_slots" and maker is not None:
        index = call.read(maker.operands[0])
        _, order = sorted_slots(index, maker.attributes["experts"])
        wanted = torch.full((index.numel(),), -1, device=raw.device)
        wanted[order] = torch.arange(len(order), device=raw.device)
        return typed(raw, "i32"), wanted, torch.arange(index.numel(), device=raw.device)
    if area.buffer is not None and area.buffer.startswith("counts of "):
        return _counts(call, value, typed(raw, "i32"), int(area.buffer.rpartition(" ")[2]))
    partial = _partial(call, value)
    if partial is not None and maker is not None:
        count = call.tokens if maker.name == "moe.matmul" else _rows(call, maker.segments()[-3][0])
        picked = torch.arange(count, device=raw.device)
        inner = call.shape(maker.operands[0])[1]
        each = -(-inner // _STEP) // len(partial) * _STEP
        parts = [slice(at, min(at + each, inner)) for at in range(0, inner, each)]
        wanted = torch.stack([torch.stack(call.reference.sums(maker, picked, part), 1) for part in parts], 1)
        return partial.permute(2, 0, 1, 3)[:count], wanted, picked
    raise NoReference(f"the buffer {area.buffer!r}")


def _counts(call: Call, value: int, found: Tensor, experts: int) -> Pair:
    """How many slots of each block's tokens have each expert."""
    index = call.read(value).long()
    each = -(-len(index) // _BLOCKS)
    block = (torch.arange(len(index), device=index.device) // max(1, each))[:, None].expand_as(index)
    real = (index >= 0) & (index < experts)
    wanted = torch.bincount((block * experts + index)[real], minlength=_BLOCKS * experts)
    return (
        found.reshape(_BLOCKS, experts),
        wanted.reshape(_BLOCKS, experts),
        torch.arange(_BLOCKS, device=index.device),
    )
