"""What a kernel should have written, beside what it did: for rows of its results that are picked."""

from __future__ import annotations

import re

import torch

from bench.cuda.steps.call import Call, row_codes, typed
from bench.cuda.steps.record import Kernel, Operation
from bench.cuda.steps.scalars import NoReference, Tensor
from bench.cuda.steps.sorting import capacity_limit, counts_of_blocks, sorted_slots

Pair = tuple[Tensor, Tensor, Tensor]
"""What was found, what is wanted, and the rows that were picked."""

_ROWS = 4096
"""So many rows of a result are compared, the first and the last among them."""
_PARTIAL = re.compile(r"partial sums, (\d+) of (\d+) of (\d+) rows")
_IN_PLAN_ORDER = {"moe.grouped_matmul": 1, "moe.join_rows": 0}
"""Operations that give rows in plan order, and which operand has the plan's offsets."""
_STEP, _STEP_OF_CODES = 64, 128
"""Elements of the inner dimension that blocks which share it divide, and of rows in int8."""


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


def of_value(call: Call, kernel: Kernel, value: int) -> Pair:
    """Of a tensor that the kernel writes.  Raises NoReference, Unwritten."""
    found, maker = call.read(value), call.function.makers[value]
    count = len(found)
    if maker.name in _IN_PLAN_ORDER:
        count = _rows(call, maker.operands[_IN_PLAN_ORDER[maker.name]])
    picked = _picked(count, found.device)
    if maker.name == "moe.row_values":
        return _by_row(call, value)
    if maker.name == "moe.capacity" and maker.attributes["order"] == "score":
        return _by_score(call, kernel, value)
    if maker.name.endswith("weight_gradient") and count > 4:
        picked = torch.tensor(sorted({0, count // 3, count // 2, count - 1}), device=found.device)
    if maker.name in ("moe.grouped_matmul_combine", "moe.sum_rows"):
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
    if maker.name == "moe.sum_rows":
        table, offsets = call.read(maker.operands[0]), maker.operands[2]
    else:
        rows, offsets = call.buffer("rows", value), maker.segments()[-3][0]
        if rows is None:
            raise NoReference(maker.name)
        table = typed(rows, _dtype(call, maker)).reshape(-1, columns)
    place = _places(call, offsets).reshape(-1, per_token)[tokens]
    terms = torch.where((place >= 0)[..., None], table[place.clamp(min=0)].double(), 0.0)
    return call.reference.finished(maker, terms.sum(1), tokens)


def _dtype(call: Call, combine: Operation) -> str:
    """Of the rows that are combined: that of those which were multiplied, before any rounding to int8."""
    lhs = combine.operands[0]
    made = call.function.makers.get(lhs)
    rounded = made is not None and made.name == "moe.quantize_rows"
    return call.function.values[made.operands[0] if made is not None and rounded else lhs].dtype


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


def _by_row(call: Call, value: int) -> Pair:
    """The inverse: the slot's value where its row is."""
    maker = call.function.makers[value]
    place = _places(call, call.function.makers[maker.operands[1]].results[0])
    values = call.read(maker.operands[0]).double().reshape(-1)
    real = place[place >= 0]
    wanted = values.new_zeros((len(place), 1))
    wanted[real, 0] = values[place >= 0]
    picked = (torch.bincount(real, minlength=len(place)) == 1).nonzero()[:, 0]
    return call.read(value)[picked], wanted[picked], picked


def _by_score(call: Call, kernel: Kernel, value: int) -> Pair:
    """Which slots are kept: one kernel sorts them and empties those that have no expert, and one ranks the others."""
    maker = call.function.makers[value]
    index, weight = (call.read(number).reshape(-1) for number in maker.operands)
    starts, slots = call.buffer("capacity starts", value), call.buffer("capacity slots", value)
    if starts is None or slots is None:
        raise NoReference(maker.name)
    experts = maker.attributes["experts"]
    made = torch.full_like(index, -1)
    written = (index < 0) | (index >= experts)
    if not any(call.area(number)[0].buffer == "capacity slots" for number in kernel.areas):
        limit = capacity_limit(len(index), experts, maker.attributes["factor"], maker.attributes["minimum"])
        bounds = typed(starts, "i32").long().clamp(0, len(index)).tolist()
        order = typed(slots, "i32").long()
        for expert in range(experts):
            mine = order[bounds[expert] : bounds[expert + 1]]
            made[mine[weight[mine].sort(descending=True, stable=True).indices[:limit]]] = expert
        # where a slot was sorted twice either place may say what becomes of it
        written = torch.bincount(order[bounds[0] : bounds[-1]], minlength=len(index)) == 1
    picked = written.nonzero()[:, 0]
    return call.read(value).reshape(-1)[picked], made[picked].long(), picked


def of_buffer(call: Call, kernel: Kernel, number: int) -> Pair:
    """Of a piece of the workspace that the kernel writes.  Raises NoReference, Unwritten."""
    area, raw = call.area(number)
    value = area.value if area.value is not None else -1
    maker, name = call.function.makers.get(value), area.buffer or ""
    if maker is not None and name == "rows":
        return _rows_to_combine(call, maker, value, raw)
    if maker is not None and name in ("rows_of_slots", "capacity starts", "capacity slots"):
        return _sorted(call, maker, name, typed(raw, "i32"))
    if name.startswith("counts of "):
        sorts = call.function.operations[kernel.operation].attributes
        experts = int(name.rpartition(" ")[2])
        wanted = counts_of_blocks(call.read(value).long(), experts, sorts.get("order") == "choice")
        return typed(raw, "i32").reshape(wanted.shape), wanted, torch.arange(len(wanted), device=raw.device)
    if maker is not None and _PARTIAL.fullmatch(name):
        return _partial_sums(call, maker, value)
    if maker is not None and name in ("codes of rows", "scales of rows"):
        return _quantised_rows(call, maker, name, raw)
    raise NoReference(f"the buffer {area.buffer!r}")


def _quantised_rows(call: Call, maker: Operation, name: str, raw: Tensor) -> Pair:
    """Codes of rows, or their scales, by the arithmetic in f32 that defines them."""
    rows = call.read(maker.operands[0]).float()
    made = call.function.makers.get(maker.operands[0])
    in_order = made is not None and made.name in _IN_PLAN_ORDER
    count = _rows(call, made.operands[_IN_PLAN_ORDER[made.name]]) if made is not None and in_order else len(rows)
    scales = rows[:count].abs().amax(1, keepdim=True) / 127.0
    if name == "codes of rows":
        wanted = (rows[:count] / scales).nan_to_num(nan=0.0).clamp(-127, 127).round()
        found = row_codes(raw, tuple(rows.shape))
    else:
        wanted, found = scales, typed(raw, "f32").reshape(len(rows), 1)
    picked = _picked(count, rows.device)
    return _sample(found[:count], wanted[picked].double(), picked)


def _rows_to_combine(call: Call, maker: Operation, value: int, raw: Tensor) -> Pair:
    count = _rows(call, maker.segments()[-3][0])
    picked = _picked(count, raw.device)
    table = typed(raw, _dtype(call, maker)).reshape(-1, call.shape(value)[1])
    partial = _partial(call, value)
    sums = None if partial is None else list(partial.double().sum(0)[:, picked])
    (wanted,) = call.reference.products(maker, picked, sums)
    return _sample(table[:count], wanted, picked)


def _sorted(call: Call, maker: Operation, name: str, found: Tensor) -> Pair:
    """What kernels that sort slots leave behind for others."""
    index = call.read(maker.operands[0])
    offsets, order = sorted_slots(index, maker.attributes["experts"])
    wanted = offsets if name == "capacity starts" else order
    if name == "rows_of_slots":
        wanted = torch.full((index.numel(),), -1, device=found.device)
        wanted[order] = torch.arange(len(order), device=found.device)
    return found[: len(wanted)], wanted, torch.arange(len(wanted), device=found.device)


def _partial_sums(call: Call, maker: Operation, value: int) -> Pair:
    partial = _partial(call, value)
    if partial is None:
        raise NoReference(maker.name)
    count = call.tokens if maker.name == "moe.matmul" else _rows(call, maker.segments()[-3][0])
    picked = torch.arange(count, device=partial.device)
    inner = call.shape(maker.operands[0])[1]
    rows = call.function.makers.get(maker.operands[0])
    step = _STEP_OF_CODES if rows is not None and rows.name == "moe.quantize_rows" else _STEP
    each = -(-inner // step) // len(partial) * step
    parts = [slice(at, min(at + each, inner)) for at in range(0, inner, each)]
    wanted = torch.stack([torch.stack(call.reference.sums(maker, picked, part), 1) for part in parts], 1)
    return partial.permute(2, 0, 1, 3)[:count], wanted, picked
