"""Gate and up in one matmul: two products of the same rows become one whose weights stand side by side."""

from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir

from moec.dialect import GroupedMatmulOp
from moec.dialect.formats import format_of
from moec.passes.base import Pass, Remarks
from moec.passes.rewriting import body, clone, fill_region, flag, inline, operations, terminator, users, yield_value

SAME = ("lhs", "offsets", "slots", "gather", "slots_per_token", "transposed")


@dataclass(frozen=True)
class InterleaveWeights(Pass):
    """Merges a grouped matmul into the one whose epilogue reads it.

    The two must multiply the same rows by matrices of one type and format.  Their columns are then packed interleaved,
    so that an activation such as SwiGLU finds gate and up in registers and the gate never goes through memory.  At most
    `most` weights share a matmul: every one takes registers from the row block.
    """

    most: int = 3
    name: ClassVar[str] = "interleave-weights"

    def apply(self, module: ir.Module, remarks: Remarks) -> None:
        while (pair := self.next_pair(module)) is not None:
            remarks.add(self, "two matmuls of the same rows became one with interleaved weights", pair[1].location)
            merge(*pair)

    def next_pair(self, module: ir.Module) -> tuple[GroupedMatmulOp, GroupedMatmulOp] | None:
        """A matmul and its only reader; searched anew after each merge, which erases operations."""
        for first in operations(body(module), "moe.grouped_matmul"):
            if (second := self.reader(first)) is not None:
                return first, second
        return None

    def reader(self, first: GroupedMatmulOp) -> GroupedMatmulOp | None:
        """The only user of `first`, if it is the epilogue of a matmul of the same rows."""
        used_by = users(first.out) if len(first.operation.results) == 1 else []
        if not used_by or any(user.name != "moe.element" for user in used_by):
            return None
        parents = [user.parent.opview for user in used_by]
        second = parents[0]
        if any(p.operation != second.operation for p in parents) or not isinstance(second, GroupedMatmulOp):
            return None
        same = all(getattr(first, name) == getattr(second, name) for name in SAME)
        fits = len(first.weights) + len(second.weights) <= self.most
        ours, theirs = first.weights[0], second.weights[0]
        alike = ours.type == theirs.type and format_of(ours) == format_of(theirs)
        return second if same and fits and alike else None


def merge(first: GroupedMatmulOp, second: GroupedMatmulOp) -> None:
    with ir.InsertionPoint(second), second.location:
        weights = [*first.weights, *second.weights]
        merged = GroupedMatmulOp(
            second.lhs,
            second.offsets,
            second.slots,
            weights,
            flag(second.gather),
            second.slots_per_token,
            [second.out.type],
        )
    block = fill_region(merged.epilogue, [ir.F32Type.get(second.context)] * len(weights))
    arguments = list(block.arguments)
    split = len(first.weights)
    with ir.InsertionPoint(block), second.location:
        (read,) = inline(first.epilogue.blocks[0], arguments[:split])
        old = second.epilogue.blocks[0]
        known: dict[ir.Value, ir.Value] = dict(zip(old.arguments, arguments[split:], strict=True))
        end = terminator(old)
        for op in old.operations:
            if op.operation.name == "moe.element" and op.operation.operands[0] == first.out:
                known[op.operation.results[0]] = read
            elif op.operation != end:
                clone(op.operation, known)
        value = end.operands[0]
        yield_value(known.get(value, value))
    second.out.replace_all_uses_with(merged.out)
    second.operation.erase()
    first.operation.erase()
