"""Matmuls for wgmma: the kernel of `moec/matmul/warpgroups.cuh`."""

from __future__ import annotations

from moec.backends.cuda import expressions, wgmma
from moec.backends.cuda.kernel import Buffer, Scope, TensorMap
from moec.backends.cuda.matmul import launch
from moec.backends.cuda.matmul.problem import Problem, epilogue
from moec.backends.cuda.matmul.tile import WarpgroupTile

_STATEMENTS = """  using Tile = moec::WarpgroupTile<{type}, {sizes}, {transposed}>;
  const {type}* const lhs[] = {{{rows}}};
  const moec::TensorMap* const maps[] = {{{maps}}};
  moec::multiply_by_warpgroups<Tile>(shared, lhs, {plan}{{{plan_values}}}, maps, {epilogue_name}{initial});
"""


def body(
    problem: Problem, tile: WarpgroupTile, scope: Scope, wish: str, rows: Buffer | None, rows_type: str
) -> launch.Body:
    """What the kernel of a product does whose rows and weights are bf16 or f16."""
    after = epilogue(problem, scope, wish, rows, rows_type)
    maps = [f"map{n}" for n in range(len(problem.weights))]
    given = problem.operands(scope)
    sizes = (problem.segments, problem.inner, problem.columns, tile.products, tile.width, tile.stages)
    box = (64, tile.depth, 1) if problem.transposed else (tile.depth, tile.width, 1)
    instruction = wgmma.definition(problem.type, tile.width * tile.products, transposed_b=problem.transposed)
    return launch.Body(
        before=f"{instruction}\n{given.before}{after.source}",
        parameters=(
            *given.parameters,
            *(f"MOEC_GRID_CONSTANT moec::TensorMap {map_}" for map_ in maps),
            *after.parameters,
        ),
        arguments=(*given.arguments, *(TensorMap(weight, box, 128) for weight in problem.weights), *after.arguments),
        statements=_STATEMENTS.format(
            type=expressions.MEMORY[problem.type],
            sizes=", ".join(map(str, sizes)),
            transposed=str(problem.transposed).lower(),
            rows=", ".join(f"lhs{n}" for n in range(problem.segments)),
            maps=", ".join(f"&{map_}" for map_ in maps),
            plan=given.plan,
            plan_values=given.values,
            epilogue_name=after.name,
            initial=after.initial,
        ),
        includes=("moec/matmul/warpgroups.cuh",),
        threads=tile.threads,
        blocks=1,
        shared_bytes=tile.shared_bytes(problem.counters),
    )
