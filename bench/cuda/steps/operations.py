"""What each operation of the kernel level should give, in float64, for some of its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from bench.cuda.steps.programs import Program
from bench.cuda.steps.record import Block, Function, Operation
from bench.cuda.steps.scalars import NoReference, Tensor
from bench.cuda.steps.sorting import sorted_slots, within_capacity

Read = Callable[[int], Tensor]
"""The tensor of a value as the kernels saw it, floats of any type."""


class Reference:
    """The operations of a function on the values of one call."""

    def __init__(self, function: Function, tokens: int, device: torch.device, read: Read) -> None:
        self.function, self.tokens, self.device, self._read = function, tokens, device, read

    def rows(self, op: Operation, result: int, picked: Tensor) -> Tensor:
        """Rows `picked` (of its first dimension) of a result.  Raises NoReference where nothing says what it should
        be."""
        how = RULES.get(op.name)
        if how is None:
            raise NoReference(op.name)
        return how(self, op, result, picked)

    def exact(self, number: int) -> Tensor:
        """A value in float64 or int64."""
        found = self._read(number)
        if found.dtype == torch.bool:
            return found
        return found.double() if found.is_floating_point() else found.long()

    def products(self, op: Operation, picked: Tensor, sums: list[Tensor] | None = None) -> list[Tensor]:
        """What the epilogue of a matmul yields, for rows in plan order (of tokens, where it is dense).

        sums  what it is given; None: they are made here
        """
        expert, slot, per_token = self._whose(op, picked)
        place = {"row": picked, "scalar": picked, "token": slot // per_token, "token_scalar": slot // per_token}
        place |= {"slot": slot, "column": expert, "expert": expert}
        return self._scalars(op.regions[0], self.sums(op, picked) if sums is None else sums, place)

    def sums(self, op: Operation, picked: Tensor, part: slice = slice(None)) -> list[Tensor]:
        """What the epilogue of a matmul is given, over a part of the inner dimension."""
        lhs, *_, weights = op.segments()
        expert, slot, per_token = self._whose(op, picked)
        source = slot // per_token if op.attributes.get("gather") else picked
        rows = self._read(lhs[0])[source][:, part].double()
        transposed = "transposed" in op.attributes
        return [self._times(rows, self._read(weight), expert, transposed, part) for weight in weights]

    def _whose(self, op: Operation, picked: Tensor) -> tuple[Tensor, Tensor, int]:
        """The expert and the slot of each row, and how many slots a token has."""
        expert, slot, per_token = torch.zeros_like(picked), picked, 1
        if op.name != "moe.matmul":
            offsets, slots = self.exact(self._plan(op)[0]), self.exact(self._plan(op)[1])
            expert = torch.searchsorted(offsets[1:].contiguous(), picked, right=True).clamp(max=len(offsets) - 2)
            slot, per_token = slots[picked], int(op.attributes["slots_per_token"])
            if "part" in op.attributes:  # weights are those of these experts alone
                expert = torch.searchsorted(torch.tensor(op.attributes["part"], device=self.device), expert)
        return expert, slot, per_token

    def finished(self, op: Operation, sums: Tensor, tokens: Tensor) -> Tensor:
        """What the finish of a combination makes of sums [tokens, columns]."""
        place = dict.fromkeys(("row", "scalar", "token", "token_scalar"), tokens)
        (made,) = self._scalars(op.regions[-1], [sums], place)
        return made

    def _plan(self, op: Operation) -> tuple[int, int]:
        """The offsets and the slots that a grouped operation reads."""
        found = [self.function.makers[n] for n in op.operands if n in self.function.makers]
        (plan,) = {id(one): one for one in found if one.name == "moe.plan"}.values()
        return plan.results[0], plan.results[1]

    def _times(self, rows: Tensor, weight: Tensor, expert: Tensor, transposed: bool, part: slice) -> Tensor:
        columns = weight.shape[2 if transposed else 1]
        made = torch.zeros((len(rows), columns), dtype=torch.float64, device=self.device)
        for one in expert.unique().tolist():
            mine = expert == one
            matrix = weight[one] if transposed else weight[one].T
            made[mine] = rows[mine] @ matrix[part].double()
        return made

    def _scalars(self, region: Block, sums: list[Tensor], place: Mapping[str, Tensor]) -> list[Tensor]:
        def element(number: int, kind: str | None) -> Tensor:
            tensor = self.exact(number)
            at = place[kind or "row"]
            if kind in ("row", "token", "column"):
                return tensor[at]
            return tensor.reshape(-1)[at][:, None]

        program = Program(self.function.values, self.device, self.exact, element)
        return [one.expand_as(sums[0]) for one in program.run(region, sums)]

    def program(self, op: Operation, picked: Tensor, chosen: bool = True) -> list[Tensor]:
        """What a program of rows yields.

        chosen  whether there are choices of kernels: of these, what is as good as any is taken for right
        """
        region = op.regions[0]
        choices = {
            number: self.exact(result)[picked]
            for number, result in zip(region.yielded, op.results, strict=True)
            if chosen
            and any(inner.name in ("moe.top_k", "moe.top_p") and number in inner.results for inner in region.operations)
        }
        program = Program(
            self.function.values, self.device, self.exact, lambda number, _: self.exact(number)[picked], choices
        )
        made = program.run(region, [self.exact(op.operands[0])[picked]] if region.arguments else [])
        shapes = [self.function.values[result].shape or () for result in op.results]
        return [one.expand((len(picked), *shape[1:])) for one, shape in zip(made, shapes, strict=True)]


def _matmul(on: Reference, op: Operation, result: int, picked: Tensor) -> Tensor:
    return on.products(op, picked)[op.results.index(result)]


def _joined(on: Reference, op: Operation, result: int, picked: Tensor) -> Tensor:
    """Each row by the product that has its expert."""
    offsets, *rows = op.operands
    bounds = on.exact(offsets)
    columns = (on.function.values[result].shape or (0, 0))[1]
    made = torch.full((len(picked), columns), torch.nan, dtype=torch.float64, device=on.device)
    for product in (on.function.makers[number] for number in rows):
        for expert in product.attributes["part"]:
            mine = (picked >= bounds[expert]) & (picked < bounds[expert + 1])
            made[mine] = on.products(product, picked[mine])[0]
    return made


def _program(on: Reference, op: Operation, result: int, picked: Tensor) -> Tensor:
    return on.program(op, picked)[op.results.index(result)]


def _plan(on: Reference, op: Operation, result: int, picked: Tensor) -> Tensor:
    offsets, slots = sorted_slots(on.exact(op.operands[0]), op.attributes["experts"])
    return offsets if result == op.results[0] else slots


def _count(on: Reference, op: Operation, result: int, picked: Tensor) -> Tensor:
    flat = on.exact(op.operands[0]).reshape(-1)
    shape = on.function.values[result].shape or ()
    return torch.bincount(flat[(flat >= 0) & (flat < shape[0])], minlength=shape[0])


def _capacity(on: Reference, op: Operation, result: int, picked: Tensor) -> Tensor:
    index, weight = (on.exact(number) for number in op.operands)
    given = (op.attributes[name] for name in ("experts", "factor", "minimum", "order"))
    return within_capacity(index, weight, *given)[picked]


def _group_sum(on: Reference, op: Operation, result: int, picked: Tensor) -> Tensor:
    """Sums of the rows of the experts that are picked."""
    a, offsets, slots, *factor = (on.exact(number) for number in op.operands)
    made = []
    for expert in picked.tolist():
        rows = torch.arange(int(offsets[expert]), int(offsets[expert + 1]), device=on.device)
        terms = a[slots[rows] // op.attributes["slots_per_token"] if op.attributes["gather"] else rows]
        made.append((terms * factor[0][rows] if factor else terms).sum(0))
    return torch.stack(made)


def _dense_group_sum(on: Reference, op: Operation, result: int, picked: Tensor) -> Tensor:
    return on.exact(op.operands[0]).sum(0, keepdim=True)


def _gradient(on: Reference, op: Operation, result: int, picked: Tensor) -> Tensor:
    """Sums of outer products, for the experts that are picked."""
    a, b = (on.exact(number) for number in op.operands[:2])
    dense = op.name == "moe.dense_weight_gradient"
    made = []
    for expert in picked.tolist():
        if dense:
            made.append(a.T @ b)
            continue
        offsets, slots = (on.exact(number) for number in op.operands[2:4])
        rows = torch.arange(int(offsets[expert]), int(offsets[expert + 1]), device=on.device)
        tokens = slots[rows] // op.attributes["slots_per_token"]
        sides = ((a, op.attributes["gather_a"]), (b, op.attributes["gather_b"]))
        left, right = (tensor[tokens if gathered else rows] for tensor, gathered in sides)
        made.append(left.T @ right)
    return torch.stack(made)


def _dequantized(on: Reference, op: Operation, result: int, picked: Tensor) -> Tensor:
    """Codes times scales, for the experts that are picked; f32 holds them to 2^-24."""
    codes, scales = (on.exact(number)[picked].float() for number in op.operands)
    return (codes.reshape(*scales.shape, -1) * scales.unsqueeze(-1)).reshape(codes.shape)


def _reshaped(on: Reference, op: Operation, result: int, picked: Tensor) -> Tensor:
    shape = on.function.values[result].shape or ()
    return on.exact(op.operands[0]).reshape(shape)[picked]


def _beside(on: Reference, op: Operation, result: int, picked: Tensor) -> Tensor:
    return torch.cat([on.exact(number) for number in op.operands], dim=op.attributes["dim"])[picked]


RULES: Mapping[str, Callable[[Reference, Operation, int, Tensor], Tensor]] = {
    "moe.capacity": _capacity,
    "moe.count": _count,
    "moe.dense_group_sum": _dense_group_sum,
    "moe.dense_weight_gradient": _gradient,
    "moe.dequantize": _dequantized,
    "moe.group_sum": _group_sum,
    "moe.grouped_matmul": _matmul,
    "moe.join_rows": _joined,
    "moe.map": _program,
    "moe.matmul": _matmul,
    "moe.plan": _plan,
    "moe.route": _program,
    "moe.weight_gradient": _gradient,
    "tensor.collapse_shape": _reshaped,
    "tensor.concat": _beside,
    "tensor.expand_shape": _reshaped,
}
