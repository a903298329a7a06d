"""Matmuls for mma.sync: the kernel of `moec/matmul/warps.cuh`."""

from __future__ import annotations

from moec.backends.cuda import expressions
from moec.backends.cuda.kernel import Argument, Buffer, Kernel, Scope, TensorPointer
from moec.backends.cuda.matmul import launch
from moec.backends.cuda.matmul.problem import Epilogue, Problem, epilogue
from moec.backends.cuda.matmul.tile import WarpTile

_STATEMENTS = """  using Tile = {tile};
  const {lhs_memory}* const lhs[] = {{{lhs}}};
  {weight} rhs[] = {{{weights}}};
  moec::multiply_by_warps<Tile>(shared, lhs, {plan}{{{plan_values}}}, rhs, {epilogue_name}{initial});
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
    """The kernel of a product whose rows are bf16 or f16, and weights alike or codes; `blocks` on a multiprocessor."""
    made = body(problem, tile, blocks, scope, epilogue(problem, scope, wish, rows, rows_type))
    return launch.alone(made, scope.name(wish), tokens)


def body(problem: Problem, tile: WarpTile, blocks: int, scope: Scope, after: Epilogue, splits: int = 1) -> launch.Body:
    """What such a kernel does, with an epilogue of its own; `splits` blocks share the inner dimension of each tile."""
    given = problem.operands(scope)
    memory = expressions.MEMORY[problem.lhs_type]
    sizes = (problem.inner, problem.columns, tile.products, tile.rows, tile.width, tile.stages, tile.down, tile.across)
    listed = ", ".join(map(str, sizes))
    if problem.codes is None:
        weights = [f"weight{n}" for n in range(len(problem.weights))]
        parameters, values = [f"const {memory}* {weight}" for weight in weights], ", ".join(weights)
        weight_arguments: list[Argument] = [TensorPointer(weight, f"const {memory}*") for weight in problem.weights]
        transposed = str(problem.transposed).lower()
        printed, weight = (
            f"moec::WarpTile<{memory}, {problem.segments}, {listed}, {transposed}>",
            f"const {memory}* const",
        )
    else:
        parameters, weight_arguments, values = problem.codes.parameters()
        types = f"{memory}, {problem.codes.code_type}, {problem.codes.scale_type}, {problem.codes.group or 0}"
        printed, weight = f"moec::CodedTile<{types}, {listed}>", f"const {problem.codes.weight_type}"
    if splits > 1:
        printed = f"moec::DividedTile<{printed}, {splits}>"
    return launch.Body(
        before=given.before + after.source,
        parameters=(*given.parameters, *parameters, *after.parameters),
        arguments=(*given.arguments, *weight_arguments, *after.arguments),
        statements=_STATEMENTS.format(
            tile=printed,
            lhs_memory=memory,
            lhs=", ".join(f"lhs{n}" for n in range(problem.segments)),
            weight=weight,
            weights=values,
            plan=given.plan,
            plan_values=given.values,
            epilogue_name=after.name,
            initial=after.initial,
        ),
        includes=("moec/matmul/warps.cuh",),
        threads=tile.threads,
        blocks=blocks,
        shared_bytes=tile.shared_bytes(problem.counters),
    )
