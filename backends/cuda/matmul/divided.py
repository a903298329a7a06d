"""Matmuls of very few rows whose inner dimension several blocks share: `moec/matmul/partial.cuh`."""

from __future__ import annotations

from dataclasses import replace

from moec.backends.cuda.kernel import Buffer, BufferPointer, DeviceGrid, Kernel, Scope, Tokens
from moec.backends.cuda.matmul import launch, warps
from moec.backends.cuda.matmul.problem import Epilogue, Problem, epilogue
from moec.backends.cuda.matmul.tiles import DECODE, Decode

_THREADS = 256

_SUM = """{epilogue}
MOEC_KERNEL({threads}, 4) {name}(const float* partial, {parameters}) {{
  const {plan} plan{{{plan_values}}};
  moec::add_partial_sums<{sizes}>(partial, plan, {epilogue_name}{initial});
}}
"""


def kernels(
    of: Problem, how: Decode, scope: Scope, rows: Buffer | None, rows_type: str, tokens: tuple[int, int], wish: str
) -> tuple[Kernel, Kernel]:
    """One that leaves partial sums in a buffer, and one that adds them up and runs the epilogue.

    tokens  below `DECODE` + 1
    """
    most = DECODE * of.per_token
    owner = of.op.results[0]
    size = 4 * how.splits * of.products * most * of.columns
    partial = scope.buffer(owner, f"partial sums, {how.splits} of {of.products} of {most} rows", 0, size)
    type_ = f"moec::PartialSums<{of.products}, {most}, {of.columns}>"
    keep = Epilogue(type_, "", ("float* partial",), (BufferPointer(partial, "float*"),), "{partial}")
    body = warps.body(of, how.tile, 2, scope, keep, how.splits)
    body = replace(body, includes=(*body.includes, "moec/matmul/partial.cuh"))
    first = launch.alone(body, scope.name(f"{wish}_parts"), tokens)
    return first, _sum(of, how, scope, partial, rows, rows_type, tokens, wish)


def _sum(
    of: Problem,
    how: Decode,
    scope: Scope,
    partial: Buffer,
    rows: Buffer | None,
    rows_type: str,
    tokens: tuple[int, int],
    wish: str,
) -> Kernel:
    name = scope.name(f"{wish}_sum")
    after = epilogue(of, scope, f"{wish}_sum", rows, rows_type)
    given, segments = of.operands(scope), of.segments
    source = _SUM.format(
        epilogue=after.source,
        threads=_THREADS,
        name=name,
        parameters=", ".join((*given.parameters[segments:], *after.parameters, "int tokens")),
        plan=given.plan,
        plan_values=given.values,
        sizes=f"{of.products}, {how.splits}, {DECODE * of.per_token}, {of.columns}",
        epilogue_name=after.name,
        initial=after.initial,
    )
    return Kernel(
        name=name,
        source=source,
        includes=("moec/matmul/partial.cuh",),
        threads=_THREADS,
        shared_bytes=0,
        grid=DeviceGrid(4),
        arguments=(BufferPointer(partial, "const float*"), *given.arguments[segments:], *after.arguments, Tokens()),
        tokens=tokens,
    )
