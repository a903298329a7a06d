"""moe.plan and moe.count."""

from __future__ import annotations

from torch_mlir import ir

from moec.backends.cuda.arch import Arch
from moec.backends.cuda.kernel import Argument, BufferPointer, Kernel, Scope, TensorPointer
from moec.backends.cuda.planned import counts_by, rows_of_slots, sorter
from moec.backends.cuda.sorting import Sort


def plan(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernels of a `moe.plan`; they also leave `planned.rows_of_slots`, and what `moe.count` asks of its index.

    That of few tokens is part of the kernel of their route.
    """
    return sort_of(op, scope).kernels(scope, arch)


def sort_of(op: ir.Operation, scope: Scope) -> Sort:
    """What a `moe.plan` asks for."""
    (index,) = op.operands
    offsets, slots = op.results
    experts = int(ir.IntegerAttr(op.attributes["experts"]).value)
    counts, total = counting(op)
    outputs: dict[str, Argument] = {
        "offsets": TensorPointer(offsets, "int*"),
        "slots": TensorPointer(slots, "int*"),
        "rows": BufferPointer(rows_of_slots(scope, offsets), "int*"),
        **counts,
    }
    total = f"offsets[expert] = start; if (expert == {experts - 1}) offsets[{experts}] = start + count; {total}"
    take = "rows[flat] = place; if (expert >= 0) slots[place] = flat;"
    return Sort(op, "plan", index, experts, total.rstrip(), take, outputs)


def counting(op: ir.Operation) -> tuple[dict[str, Argument], str]:
    """What a plan or a capacity writes of counts: the outputs, and the statement for an expert's total."""
    outputs: dict[str, Argument] = {}
    total = ""
    for n, count in enumerate(counts_by(op)):
        outputs[f"chosen{n}"] = TensorPointer(count, "int*")
        total += f"if (expert < {ir.RankedTensorType(count.type).get_dim_size(0)}) chosen{n}[expert] = count; "
    return outputs, total.rstrip()


def count(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernels of a `moe.count`: none where the same slots are sorted, and counted on the way."""
    (index,) = op.operands
    (result,) = op.results
    sorts = sorter(index)
    if sorts is not None and result in counts_by(sorts):
        return ()
    experts = int(ir.RankedTensorType(result.type).get_dim_size(0))
    outputs: dict[str, Argument] = {"chosen": TensorPointer(result, "int*")}
    return Sort(op, "count", index, experts, "chosen[expert] = count;", "", outputs).kernels(scope, arch)
