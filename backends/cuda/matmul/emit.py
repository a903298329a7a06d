"""The emitters of `moe.matmul`, `moe.grouped_matmul` and the product of `moe.grouped_matmul_combine`."""

from __future__ import annotations

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.kernel import Buffer, Kernel, Scope
from moec.backends.cuda.matmul import warpgroups
from moec.backends.cuda.matmul.problem import Problem, problem
from moec.backends.cuda.matmul.tile import WarpgroupTile


def matmul(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernels of `moe.matmul` or `moe.grouped_matmul`.  Raises Unsupported."""
    return _kernels(problem(op), scope, arch, None, "f32")


def product(op: ir.Operation, scope: Scope, arch: Arch, rows: Buffer, rows_type: str) -> tuple[Kernel, ...]:
    """The kernels of the product of a `moe.grouped_matmul_combine`: its epilogue's values, in plan order.

    rows  gets [T * slots_per_token, N] elements of `rows_type`.  Raises Unsupported.
    """
    return _kernels(problem(op), scope, arch, rows, rows_type)


def _kernels(of: Problem, scope: Scope, arch: Arch, rows: Buffer | None, rows_type: str) -> tuple[Kernel, ...]:
    if of.type in ("bf16", "f16") and of.lhs_type == of.type and of.inner % 8 == 0 and arch.wgmma:
        tile = WarpgroupTile(len(of.weights), 256 // len(of.weights) // 8 * 8, 4)
        return (warpgroups.kernel(of, tile, scope, "matmul", rows, rows_type, (0, None)),)
    raise unsupported("cuda", of.op, f"rows of {of.lhs_type} and weights of {of.type}")
