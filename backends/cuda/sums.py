"""moe.slot_values, moe.row_values, moe.group_sum and moe.dense_group_sum."""

from __future__ import annotations

from typing import Any

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cpu.rowcount import rows_per_token
from moec.backends.cuda import expressions
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.kernel import (
    Argument,
    BufferPointer,
    FixedGrid,
    Kernel,
    Scope,
    TensorPointer,
    TokenGrid,
    Tokens,
)
from moec.backends.cuda.parameters import parameters
from moec.backends.cuda.planned import columns_of, rows_of_slots

INCLUDES = ("moec/primitives.cuh", "moec/scalar.cuh", "moec/sums.cuh")
_THREADS = 256


def slot_values(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernel of a `moe.slot_values`."""
    return (_by_slots(op, scope, "slot_values", "values_by_slot", columns_of(op.results[0])),)


def row_values(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernel of a `moe.row_values`."""
    return (_by_slots(op, scope, "row_values", "values_by_row", columns_of(op.operands[0])),)


def _by_slots(op: ir.Operation, scope: Scope, wish: str, call: str, per_token: int) -> Kernel:
    values, slots = op.operands[0], op.operands[1]
    (out,) = op.results
    if isinstance(slots.owner, ir.Block) or slots.owner.operation.name != "moe.plan":
        raise unsupported("cuda", op, "its slots must be those of a plan")
    name = scope.name(wish)
    group = max(1, _THREADS // per_token)
    threads = -(-group * per_token // 32) * 32
    memory = expressions.memory_type(op, values.type)
    arguments: dict[str, Argument] = {
        "values": TensorPointer(values, f"const {memory}*"),
        "places": BufferPointer(rows_of_slots(scope, slots.owner.operation.results[0]), "const int*"),
        "out": TensorPointer(out, f"{memory}*"),
    }
    source = "\n".join(
        [
            f"MOEC_KERNEL({threads}, 1) {name}({parameters(arguments)}) {{",
            f"  moec::{call}(values, places, out, tokens * {per_token});",
            "}\n",
        ]
    )
    return Kernel(name, source, INCLUDES, threads, 0, TokenGrid(group), (*arguments.values(), Tokens()))


def group_sum(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernel of a `moe.group_sum`: a block for 32 columns of an expert."""
    view: Any = op.opview
    arguments: dict[str, Argument] = {"offsets": TensorPointer(view.offsets, "const int*")}
    line, weight = "row", "1.0f"
    if ir.IntegerAttr(view.gather).value:
        arguments["slots"] = TensorPointer(view.slots, "const int*")
        line = f"slots[row] / {ir.IntegerAttr(view.slots_per_token).value}"
    if len(view.factor):
        arguments["factor"] = TensorPointer(view.factor[0], "const float*")
        weight = "factor[row]"
    return (_sum(op, scope, arguments, "offsets[expert]", "offsets[expert + 1]", line, weight),)


def dense_group_sum(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernel of a `moe.dense_group_sum`."""
    (a,) = op.operands
    return (_sum(op, scope, {}, "0", f"tokens * {rows_per_token(a)}", "row", "1.0f"),)


def _sum(
    op: ir.Operation, scope: Scope, arguments: dict[str, Argument], first: str, last: str, line: str, weight: str
) -> Kernel:
    a, (out,) = op.operands[0], op.results
    experts, columns = ir.RankedTensorType(out.type).shape
    blocks = -(-columns // 32)
    name = scope.name("sum")
    a_type, out_type = expressions.memory_type(op, a.type), expressions.memory_type(op, out.type)
    arguments = {"a": TensorPointer(a, f"const {a_type}*"), "out": TensorPointer(out, f"{out_type}*"), **arguments}
    source = "\n".join(
        [
            f"MOEC_KERNEL(1024, 1) {name}({parameters(arguments)}) {{",
            "  MOEC_SHARED(shared);",
            f"  const int expert = moec::block_index() / {blocks};",
            f"  moec::sum_rows<{a_type}, {out_type}, {columns}>(",
            f"      a, out + expert * {columns}, {first}, {last}, moec::block_index() % {blocks} * 32,",
            f"      [&](int row) {{ return {line}; }}, [&](int row) {{ return {weight}; }}, shared);",
            "}\n",
        ]
    )
    shared = 4 * 1024
    found = (*arguments.values(), Tokens())
    return Kernel(name, source, INCLUDES, 1024, shared, FixedGrid(experts * blocks), found)
