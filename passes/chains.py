"""The experts of a graph as chains of dispatch, experts and combine, which can be taken apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import linalg

from moec.dialect import CombineOp, DispatchOp, ExpertsOp, OwnOp
from moec.dialect.subsets import renumber, renumbered, take_experts
from moec.passes.refusal import error
from moec.passes.rewriting import (
    body,
    clone,
    defining,
    fill_region,
    integer,
    operations,
    row_type,
    terminator,
    users,
    yield_value,
)
from moec.passes.same_program import own_parameters


@dataclass(frozen=True)
class Chain:
    """Experts that are dispatched together; `numbers` are theirs in the file, `choice` is the index in those."""

    dispatch: DispatchOp
    experts: ExpertsOp
    combine: CombineOp
    choice: ir.Value
    numbers: tuple[int, ...]

    def part(self, places: Sequence[int], count: int, store: Callable[[str, ir.Value], ir.Value]) -> ir.Value:
        """The combined results of some experts of the chain; `store` says how a linear's weights are kept."""
        weight = self.combine.weight
        index = renumber(self.choice, weight, [self.numbers[i] for i in places], count)
        types = (
            self.dispatch.rows.type,
            ir.RankedTensorType.get([len(places) + 1], ir.IntegerType.get_signless(32)),
            self.dispatch.slots.type,
        )
        dispatch = DispatchOp(self.dispatch.x, index, integer(len(places)), *types)
        old = self.experts.body.blocks[0]
        own = {p: take_experts(p, places) for p in own_parameters(old)}
        own |= {p: store(_name(p), own[p]) for p in linears(old)}
        experts = ExpertsOp(dispatch.rows, dispatch.offsets, self.experts.out.type)
        block = fill_region(experts.body, [a.type for a in old.arguments])
        with ir.InsertionPoint(block):
            _copy_program(old, block, own)
        return CombineOp(experts.out, dispatch.slots, weight, self.combine.out.type).out

    def erase(self) -> None:
        made = defining(self.dispatch.index)
        for op in (self.combine, self.experts, self.dispatch):
            op.operation.erase()
        if made is not None and made.name == "moe.route" and not any(users(result) for result in made.results):
            made.erase()


def chains(module: ir.Module, count: int) -> list[Chain]:
    """Every chain of dispatch, experts and combine; shared experts are none."""
    found = []
    for experts in operations(body(module), "moe.experts"):
        dispatch = defining(experts.rows)
        combines = users(experts.out)
        if dispatch is None or dispatch.name != "moe.dispatch" or [c.name for c in combines] != ["moe.combine"]:
            raise error("E0611", "experts are quantised at graph level, where they are dispatched and combined")
        index = dispatch.opview.index
        numbers, choice = renumbered(index) or (tuple(range(count)), index)
        found.append(Chain(dispatch.opview, experts, combines[0].opview, choice, numbers))
    return found


def linears(block: ir.Block) -> list[ir.Value]:
    """The parameters whose own slices are the matrices of linears."""
    matrices = [op.operation.operands[0] for op in operations(block, "linalg.matvec")]
    return [m.owner.operation.operands[0] for m in matrices if defining(m) is not None and _is_own(m)]


def _is_own(value: ir.Value) -> bool:
    return bool(value.owner.operation.name == "moe.own")


def _name(parameter: ir.Value) -> str:
    while not isinstance(parameter, ir.BlockArgument):
        parameter = parameter.owner.operation.operands[0]
    attributes = parameter.owner.owner.operation.attributes["arg_attrs"][parameter.arg_number]
    return str(ir.StringAttr(attributes["moe.name"]).value)


def _copy_program(old: ir.Block, block: ir.Block, own: Mapping[ir.Value, ir.Value]) -> None:
    """Copy a row program to `block` with other parameters in place of its own; linears take matrices of any type."""
    known: dict[Any, Any] = dict(zip(old.arguments, block.arguments, strict=True))
    end = terminator(old)
    for view in old.operations:
        op = view.operation
        if op == end:
            yield_value(known.get(end.operands[0], end.operands[0]))
        elif op.name == "moe.own":
            whole = own[op.operands[0]]
            known[op.results[0]] = OwnOp(whole, row_type(whole)).slice
        elif op.name == "linalg.matvec":
            matrix, vector, start = (known.get(value, value) for value in op.operands)
            known[op.results[0]] = linalg.matvec(matrix, vector, outs=[start])
        else:
            clone(op, known)
