"""moe.quantize_rows: rows as whole numbers of a byte, which products of such numbers multiply exactly, and scales."""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.cuda import expressions
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.kernel import (
    Argument,
    Buffer,
    BufferPointer,
    DeviceGrid,
    Kernel,
    Scope,
    TensorPointer,
    Tokens,
)
from moec.backends.cuda.parameters import parameters
from moec.backends.cuda.planned import columns_of
from moec.backends.cuda.program import rows
from moec.dialect.launches import launch_of

_THREADS, _BLOCKS = 256, 4


@dataclass(frozen=True)
class RowCodes:
    """What stands for the result of a `moe.quantize_rows`: i8 [rows, columns up to a multiple of 16] and f32 [rows]."""

    codes: Buffer
    scales: Buffer


def is_quantised(value: ir.Value) -> bool:
    """Whether a value is made of rows by `moe.quantize_rows`."""
    return not isinstance(value.owner, ir.Block) and value.owner.operation.name == "moe.quantize_rows"


def before_rounding(value: ir.Value) -> ir.Value:
    """The rows that a value was before `moe.quantize_rows`, if that made it."""
    found: ir.Value = value.owner.operation.operands[0] if is_quantised(value) else value
    return found


def row_codes(scope: Scope, value: ir.Value) -> RowCodes:
    """The buffers of rows that are quantised."""
    count, pitch = rows(value), -(-columns_of(value) // 16) * 16
    return RowCodes(
        scope.buffer(value, "codes of rows", count * pitch, 0),
        scope.buffer(value, "scales of rows", 4 * count, 0),
    )


def quantize_rows(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernel of a `moe.quantize_rows`, or of several that have a launch in common, which the last of them gives."""
    together = launch_of(op)
    if op != together[-1]:
        return ()
    arguments: dict[str, Argument] = {}
    calls = []
    for number, one in enumerate(together):
        source, made = before_rounding(one.results[0]), row_codes(scope, one.results[0])
        memory = expressions.memory_type(one, source.type)
        names = [f"{name}{number or ''}" for name in ("rows", "codes", "scales")]
        arguments[names[0]] = TensorPointer(source, f"const {memory}*")
        arguments[names[1]] = BufferPointer(made.codes, "moec::i8*")
        arguments[names[2]] = BufferPointer(made.scales, "float*")
        count = f"tokens * {rows(source)}"
        calls.append(f"  moec::quantise_rows<{columns_of(source)}>({', '.join(names)}, {count});")
    name = scope.name("quantise_rows")
    text = "\n".join([f"MOEC_KERNEL({_THREADS}, {_BLOCKS}) {name}({parameters(arguments)}) {{", *calls, "}\n"])
    found = (*arguments.values(), Tokens())
    return (Kernel(name, text, ("moec/rowcodes.cuh",), _THREADS, 0, DeviceGrid(_BLOCKS), found),)
