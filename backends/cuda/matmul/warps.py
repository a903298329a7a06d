"""Matmuls for mma.sync: the kernel of `moec/matmul/warps.cuh`."""

from __future__ import annotations

from moec.backends.cuda import expressions
from moec.backends.cuda.kernel import Buffer, DeviceGrid, Kernel, Scope, TensorPointer, Tokens
from moec.backends.cuda.matmul.problem import Problem, epilogue
from moec.backends.cuda.matmul.tile import WarpTile

_TEMPLATE = """{epilogue}
MOEC_KERNEL({threads}, {blocks}) {name}({parameters}) {{
  MOEC_SHARED(shared);
  using Tile = moec::WarpTile<{type}, {sizes}, {transposed}>;
  const {lhs_memory}* const lhs[] = {{{lhs}}};
  const {type}* const rhs[] = {{{weights}}};
  moec::multiply_by_warps<Tile>(shared, lhs, {plan}{{{plan_values}}}, rhs, {epilogue_name}{initial});
}}
"""


def kernel(
    problem: Problem,
    tile: WarpTile,
    blocks: int,
    scope: Scope,
    wish: str,
    rows: Buffer | None,
    rows_type: str,
    tokens: tuple[int, int | None],
) -> Kernel:
    """The kernel of a product whose rows and weights are bf16 or f16; `blocks` of it on a multiprocessor."""
    name = scope.name(wish)
    after = epilogue(problem, scope, wish, rows, rows_type)
    lhs, given, plan_values = problem.operands()
    memory = expressions.MEMORY[problem.type]
    weights = [f"weight{n}" for n in range(len(problem.weights))]
    sizes = (
        problem.segments, problem.inner, problem.columns,
        tile.products, tile.rows, tile.width, tile.stages, tile.down, tile.across,
    )  # fmt: skip
    source = _TEMPLATE.format(
        epilogue=after.source,
        threads=tile.threads,
        blocks=blocks,
        name=name,
        parameters=", ".join(
            (*lhs, *(f"const {memory}* {weight}" for weight in weights), *after.parameters, "int tokens")
        ),
        type=memory,
        sizes=", ".join(map(str, sizes)),
        transposed=str(problem.transposed).lower(),
        lhs_memory=expressions.MEMORY[problem.lhs_type],
        lhs=", ".join(f"lhs{n}" for n in range(problem.segments)),
        weights=", ".join(weights),
        plan=problem.plan_type,
        plan_values=plan_values,
        epilogue_name=after.name,
        initial=after.initial,
    )
    return Kernel(
        name=name,
        source=source,
        includes=("moec/matmul/warps.cuh",),
        threads=tile.threads,
        shared_bytes=tile.shared_bytes(problem.counters),
        grid=DeviceGrid(blocks),
        arguments=(
            *given,
            *(TensorPointer(weight, f"const {memory}*") for weight in problem.weights),
            *after.arguments,
            Tokens(),
        ),
        tokens=tokens,
    )
