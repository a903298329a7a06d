"""The emitters of `moe.weight_gradient` and `moe.dense_weight_gradient`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cuda import expressions, wgmma
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.kernel import Argument, DeviceGrid, Kernel, Scope, TensorPointer, Tokens

_HIGH, _STAGES, _DOWN, _ACROSS = 128, 3, 2, 4
"""Of `GradientTile`: 8 warps with 64 by 32 or 64 elements each."""
_WIDE = 256

_WARPGROUP_STAGES = 4
_LANES_BYTES = 2 * 16 * 64 * 4

_TEMPLATE = """{before}MOEC_KERNEL({threads}, {blocks}) {name}({parameters}) {{
  MOEC_SHARED(shared);
  const moec::ExpertRows<{experts}> rows{{{offsets}, tokens}};
  const moec::RowOperand<{a_type}, {a_columns}, {a_gather}> a{{left, {slots}}};
  const moec::RowOperand<{b_type}, {b_columns}, {b_gather}> b{{right, {slots}}};
  {call}(shared, rows, a, b, out);
}}
"""


@dataclass(frozen=True)
class _Way:
    """One of the kernels: the header and the function, what is printed before it, and what a block of it takes."""

    header: str
    call: str
    threads: int
    blocks: int
    shared_bytes: int
    before: str = ""


_LANES = _Way("moec/matmul/gradient_lanes.cuh", "moec::gradient_by_lanes", 256, 2, _LANES_BYTES)


def _by_warps(type_: str, out: str, arch: Arch) -> _Way:
    wide = _WIDE if arch.shared_bytes >= _STAGES * (_HIGH + _WIDE) * 128 else _WIDE // 2
    tile = f"moec::GradientTile<{type_}, {out}, {_HIGH}, {wide}, {_STAGES}, {_DOWN}, {_ACROSS}>"
    shared = _STAGES * (_HIGH + wide) * 128
    return _Way("moec/matmul/gradient.cuh", f"moec::gradient_by_warps<{tile}>", 256, 1, shared)


def _by_warpgroups(element: str, type_: str, out: str) -> _Way:
    tile = f"moec::GradientWarpgroupTile<{type_}, {out}, {_WIDE}, {_WARPGROUP_STAGES}>"
    call = f"moec::gradient_by_warpgroups<{tile}>"
    shared = _WARPGROUP_STAGES * ((_HIGH + _WIDE) * 128 + 16)
    before = wgmma.definition(element, _WIDE, transposed_a=True, transposed_b=True)
    return _Way("moec/matmul/gradient_warpgroups.cuh", call, 384, 1, shared, before)


def weight_gradient(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernel of a sum of outer products for each expert.  Raises Unsupported."""
    view: Any = op.opview
    dense = op.name == "moe.dense_weight_gradient"
    experts, a_columns, b_columns = ir.RankedTensorType(view.out.type).shape
    gathers = [0, 0]
    if not dense:
        per_token = ir.IntegerAttr(view.slots_per_token).value
        gathers = [per_token * bool(ir.IntegerAttr(flag).value) for flag in (view.gather_a, view.gather_b)]
    types = [expressions.element_of(value.type) for value in (view.a, view.b)]
    a_type, b_type = (expressions.memory_type(op, value.type) for value in (view.a, view.b))
    out_type = expressions.memory_type(op, view.out.type)
    if "f32" in types:
        how = _LANES
    else:
        if types[0] != types[1] or types[0] not in ("bf16", "f16"):
            raise unsupported("cuda", op, f"a product of {types[0]} and {types[1]}")
        for columns in (a_columns, b_columns):
            if columns % 8:
                raise unsupported("cuda", op, f"rows of {columns} elements: no multiple of 16 bytes")
        how = _by_warpgroups(types[0], a_type, out_type) if arch.wgmma else _by_warps(a_type, out_type, arch)
    name = scope.name("weight_gradient")
    parameters = [f"const {a_type}* left", f"const {b_type}* right", f"{out_type}* out"]
    arguments: list[Argument] = [
        TensorPointer(view.a, f"const {a_type}*"),
        TensorPointer(view.b, f"const {b_type}*"),
        TensorPointer(view.out, f"{out_type}*"),
    ]
    if not dense:
        parameters += ["const int* offsets", "const int* slots"]
        arguments += [TensorPointer(view.offsets, "const int*"), TensorPointer(view.slots, "const int*")]
    source = _TEMPLATE.format(
        before=how.before,
        threads=how.threads,
        blocks=how.blocks,
        name=name,
        parameters=", ".join((*parameters, "int tokens")),
        experts=0 if dense else experts,
        offsets="nullptr" if dense else "offsets",
        slots="nullptr" if dense else "slots",
        a_type=a_type,
        b_type=b_type,
        a_columns=a_columns,
        b_columns=b_columns,
        a_gather=gathers[0],
        b_gather=gathers[1],
        call=how.call,
    )
    return (
        Kernel(
            name=name,
            source=source,
            includes=(how.header,),
            threads=how.threads,
            shared_bytes=how.shared_bytes,
            grid=DeviceGrid(how.blocks),
            arguments=(*arguments, Tokens()),
        ),
    )
