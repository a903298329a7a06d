"""Regions: the programs of rows and the epilogues of products, for many rows at a time.

What differs by row has a dimension of rows in front; constants and parameters have none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from bench.cuda.steps.choices import best, chosen, most, put, take
from bench.cuda.steps.record import Block, Operation, Value
from bench.cuda.steps.scalars import NoReference, Tensor, apply, combined, constant

_DYNAMIC = -(2**63)


class Program:
    """The run of a region.

    outside   values that it uses from outside; `moe.row` and `moe.element` read the rows of those that `row` gives
    row       the tensor of a value, and of a `moe.element`'s kind, for the rows that are computed
    choices   what kernels chose, for results of `moe.top_k` and `moe.top_p`: what is as good is taken for right
    """

    def __init__(
        self,
        values: Sequence[Value],
        device: torch.device,
        outside: Callable[[int], Tensor],
        row: Callable[[int, str | None], Tensor],
        choices: Mapping[int, Tensor] | None = None,
    ) -> None:
        self._values, self._device, self._outside, self._row = values, device, outside, row
        self._choices = choices or {}
        self._known: dict[int, Tensor] = {}

    def run(self, block: Block, arguments: Sequence[Tensor]) -> list[Tensor]:
        """What the region yields.  Raises NoReference for what is not known here."""
        self._known.update(zip(block.arguments, arguments, strict=False))
        for op in block.operations[:-1]:
            self._do(op)
        return [self._value(number) for number in block.yielded]

    def _value(self, number: int) -> Tensor:
        if number not in self._known:
            self._known[number] = self._outside(number)
        return self._known[number]

    def _do(self, op: Operation) -> None:
        (result,) = op.results
        shape = self._values[result].shape
        match op.name:
            case "arith.constant":
                made = constant(op, shape, self._device)
            case "tensor.empty":
                made = torch.zeros(shape or (), dtype=torch.float64, device=self._device)
            case "moe.row":
                made = self._row(op.operands[0], None)
            case "moe.element":
                made = self._row(op.operands[0], op.attributes["kind"])
            case "moe.top_k":
                made = best(self._value(op.operands[0]), op.attributes["k"], self._choices.get(result))
            case "moe.top_p":
                mass, count = op.attributes["mass"], op.attributes["most"]
                made = most(self._value(op.operands[0]), mass, count, self._choices.get(result))
            case "moe.take":
                made = take(*self._lined(op))
            case "moe.put":
                made = put(*self._lined(op), (shape or ())[-1])
            case "moe.chosen":
                made = chosen(self._value(op.operands[0]), (shape or ())[-1])
            case "tensor.splat":
                value = self._value(op.operands[0])
                made = value.reshape((*value.shape, *(1 for _ in shape or ()))).expand((*value.shape, *(shape or ())))
            case "tensor.extract":
                made = self._extracted(op)
            case "tensor.extract_slice":
                made = self._slice(op)
            case "tensor.concat":
                made = self._beside(op)
            case "tensor.expand_shape" | "tensor.collapse_shape":
                source = self._value(op.operands[0])
                rows = source.shape[: source.dim() - len(self._values[op.operands[0]].shape or ())]
                made = source.reshape((*rows, *(shape or ())))
            case "linalg.generic":
                made = self._generic(op)
            case _:
                made = apply(op, [self._value(number) for number in op.operands], self._values)
        self._known[result] = made

    def _rows(self, number: int) -> Tensor:
        """A value with its dimension of rows, of size 1 where it is the same for all."""
        value = self._value(number)
        return value.unsqueeze(0) if value.dim() == len(self._values[number].shape or ()) else value

    def _lined(self, op: Operation) -> tuple[Tensor, Tensor]:
        """Both operands, broadcast along all dimensions but the last."""
        first, second = (self._rows(number) for number in op.operands)
        lead = torch.broadcast_shapes(first.shape[:-1], second.shape[:-1])
        return first.expand((*lead, first.shape[-1])), second.expand((*lead, second.shape[-1]))

    def _extracted(self, op: Operation) -> Tensor:
        """An element of each row; NaN, or -1, where it would be outside of its tensor."""
        made, *places = (self._rows(number) for number in op.operands)
        inside = torch.ones((1,), dtype=torch.bool, device=self._device)
        for place in places:
            size = made.shape[1]
            inside = inside & (place >= 0) & (place < size)
            count = max(len(place), len(made))
            at = place.clamp(0, size - 1).long().expand(count)
            made = made.expand((count, *made.shape[1:]))[torch.arange(count, device=self._device), at]
        return torch.where(inside, made, _missing(made))

    def _slice(self, op: Operation) -> Tensor:
        """The same of slices of sizes that are known."""
        offsets, sizes, strides = (op.attributes[f"static_{name}"] for name in ("offsets", "sizes", "strides"))
        if _DYNAMIC in sizes or any(step != 1 for step in strides):
            raise NoReference(op.name)
        made, given = self._rows(op.operands[0]), iter(op.operands[1:])
        for axis, (first, size) in enumerate(zip(offsets, sizes, strict=True), 1):
            last = made.shape[axis] - size
            begin = self._rows(next(given)) if first == _DYNAMIC else torch.tensor([first], device=self._device)
            places = begin.clamp(0, last)[:, None] + torch.arange(size, device=self._device)
            count = max(len(places), len(made))
            wide = (count, *made.shape[1:axis], size, *made.shape[axis + 1 :])
            along = [count, *(1 for _ in wide[1:])]
            along[axis] = size
            found = made.expand((count, *made.shape[1:]))
            made = found.gather(axis, places.expand(count, -1).reshape(along).expand(wide))
            inside = (begin >= 0) & (begin <= last)
            made = torch.where(inside.reshape(-1, *(1 for _ in wide[1:])), made, _missing(made))
        return made.reshape((len(made), *(self._values[op.results[0]].shape or ())))

    def _beside(self, op: Operation) -> Tensor:
        parts = [self._rows(number) for number in op.operands]
        count = max(map(len, parts))
        return torch.cat([one.expand((count, *one.shape[1:])) for one in parts], dim=1 + op.attributes["dim"])

    def _generic(self, op: Operation) -> Tensor:
        """A `linalg.generic` with one result: elements of broadcast operands, added up where the result lacks a
        dimension."""
        maps = op.attributes["indexing_maps"]
        inputs, (out,) = op.segments()
        if any(axis < 0 for one in maps for axis in one) or len(op.results) != 1:
            raise NoReference(op.name)
        extents: dict[int, int] = {}
        for number, axes in zip(op.operands, maps, strict=True):
            extents |= dict(zip(axes, self._values[number].shape or (), strict=True))
        (block,) = op.regions
        spread = [self._spread(number, axes, len(extents)) for number, axes in zip(op.operands, maps, strict=True)]
        self._known.update(zip(block.arguments[: len(inputs)], spread, strict=False))
        target = maps[-1]
        over = [axis for axis in sorted(extents) if axis not in target]
        body, last = list(block.operations[:-1]), None
        if over:
            last = body.pop()
        if not over:
            self._known[block.arguments[-1]] = spread[-1]
        for inner in body:
            self._do(inner)
        if last is None:
            made = self._value(block.yielded[0])
        else:
            terms = [number for number in last.operands if number != block.arguments[-1]]
            if len(terms) != 1 or last.results != block.yielded:
                raise NoReference(f"{op.name} of {last.name}")
            term = self._value(terms[0])
            term = term.expand((term.shape[0], *(extents[axis] for axis in sorted(extents))))
            made = combined(last, term, [axis + 1 for axis in over], self._values)
            start = self._value(out)
            made = apply(last, [made, start if start.dim() == made.dim() else start.unsqueeze(0)], self._values)
            return made if target == sorted(target) else made.permute(0, *(1 + sorted(target).index(a) for a in target))
        made = made.expand((made.shape[0], *(extents[axis] for axis in sorted(extents))))
        return made.permute(0, *(axis + 1 for axis in target))

    def _spread(self, number: int, axes: Sequence[int], dimensions: int) -> Tensor:
        """An operand along all dimensions of the loop, those that it lacks of size 1; rows in front."""
        tensor = self._value(number)
        if tensor.dim() == len(axes):
            tensor = tensor.unsqueeze(0)
        tensor = tensor.permute(0, *(1 + axes.index(axis) for axis in sorted(axes)))
        for axis in range(dimensions):
            if axis not in axes:
                tensor = tensor.unsqueeze(axis + 1)
        return tensor


def _missing(values: Tensor) -> float | bool | int:
    """What is read outside of a tensor."""
    if values.dtype == torch.bool:
        return False
    return float("nan") if values.is_floating_point() else -1
