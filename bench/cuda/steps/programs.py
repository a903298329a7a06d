"""Regions: the programs of rows and the epilogues of products, for many rows at a time.

What differs by row has a dimension of rows in front; constants and parameters have none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from bench.cuda.steps.record import Block, Operation, Value
from bench.cuda.steps.scalars import COMBINED, NoReference, Tensor, apply, constant

_SAME = 1e-5
"""Scores whose relative difference is smaller may be ordered either way in f32."""


class Program:
    """The run of a region.

    outside   values that it uses from outside; `moe.row` and `moe.element` read the rows of those that `row` gives
    row       the tensor of a value, and of a `moe.element`'s kind, for the rows that are computed
    choices   what kernels chose, for the results of `moe.top_k` that are yielded: what is as good is taken for right
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
                made = self._best(result, op)
            case "moe.take":
                values, index = (self._value(number) for number in op.operands)
                made = values.gather(-1, index.clamp(0, values.shape[-1] - 1))
            case "moe.put":
                values, index = (self._value(number) for number in op.operands)
                into = torch.zeros((len(values), *(shape or ())), dtype=values.dtype, device=self._device)
                made = into.scatter(-1, index.clamp(0, into.shape[-1] - 1), values)
            case "tensor.expand_shape" | "tensor.collapse_shape":
                source = self._value(op.operands[0])
                rows = source.shape[: source.dim() - len(self._values[op.operands[0]].shape or ())]
                made = source.reshape((*rows, *(shape or ())))
            case "linalg.generic":
                made = self._generic(op)
            case _:
                made = apply(op, [self._value(number) for number in op.operands])
        self._known[result] = made

    def _best(self, result: int, op: Operation) -> Tensor:
        """The positions of the largest scores, of equal ones the lower first."""
        scores, k = self._value(op.operands[0]), op.attributes["k"]
        ranked, order = scores.sort(dim=-1, descending=True, stable=True)
        best, order = ranked[..., :k], order[..., :k]
        chosen = self._choices.get(result)
        if chosen is None:
            return order
        inside = (chosen >= 0) & (chosen < scores.shape[-1])
        taken = scores.gather(-1, chosen.clamp(0, scores.shape[-1] - 1))
        near = (taken - best).abs() <= _SAME * best.abs()
        # Equal scores are equal in f32, too: there the lower position is the only right one.
        good = (inside & near & ((taken != best) | (chosen == order))).all(-1, keepdim=True)
        ascending = chosen.sort(-1).values
        good &= (ascending[..., 1:] != ascending[..., :-1]).all(-1, keepdim=True)
        return torch.where(good, chosen, order)

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
            if last.name not in COMBINED or len(terms) != 1 or last.results != block.yielded:
                raise NoReference(f"{op.name} of {last.name}")
            term = self._value(terms[0])
            term = term.expand((term.shape[0], *(extents[axis] for axis in sorted(extents))))
            made = COMBINED[last.name](term, [axis + 1 for axis in over])
            start = self._value(out)
            made = apply(last, [made, start if start.dim() == made.dim() else start.unsqueeze(0)])
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
