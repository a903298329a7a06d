"""Matmuls for wgmma: the kernel of `moec/matmul/warpgroups.cuh`."""

from __future__ import annotations

from moec.backends.cuda import expressions, wgmma
from moec.backends.cuda.kernel import Argument, Buffer, DeviceGrid, Kernel, Scope, TensorMap, Tokens
from moec.backends.cuda.matmul.problem import Problem, epilogue
from moec.backends.cuda.matmul.tile import WarpgroupTile

_TEMPLATE = """{wgmma}
{epilogue}
MOEC_KERNEL({threads}, 1) {name}({parameters}) {{
  MOEC_SHARED(shared);
  using Tile = moec::WarpgroupTile<{type}, {sizes}, {transposed}>;
  const {type}* const lhs[] = {{{rows}}};
  const moec::TensorMap* const maps[] = {{{maps}}};
  moec::multiply_by_warpgroups<Tile>(shared, lhs, {plan}{{{plan_values}}}, maps, {epilogue_name}{initial});
}}
"""


def kernel(
    problem: Problem,
    tile: WarpgroupTile,
    scope: Scope,
    wish: str,
    rows: Buffer | None,
    rows_type: str,
    tokens: tuple[int, int | None],
) -> Kernel:
    """The kernel of a product whose rows and weights are bf16 or f16."""
    name = scope.name(wish)
    after = epilogue(problem, scope, wish, rows, rows_type)
    maps = [f"map{n}" for n in range(len(problem.weights))]
    lhs, given, plan_values = problem.operands(scope)
    sizes = (problem.segments, problem.inner, problem.columns, tile.products, tile.width, tile.stages)
    source = _TEMPLATE.format(
        wgmma=wgmma.definition(problem.type, tile.width * tile.products, transposed_b=problem.transposed),
        epilogue=after.source,
        threads=tile.threads,
        name=name,
        parameters=", ".join(
            (*lhs, *(f"MOEC_GRID_CONSTANT moec::TensorMap {map_}" for map_ in maps), *after.parameters, "int tokens")
        ),
        type=expressions.MEMORY[problem.type],
        sizes=", ".join(map(str, sizes)),
        transposed=str(problem.transposed).lower(),
        rows=", ".join(f"lhs{n}" for n in range(problem.segments)),
        maps=", ".join(f"&{map_}" for map_ in maps),
        plan=problem.plan_type,
        plan_values=plan_values,
        epilogue_name=after.name,
        initial=after.initial,
    )
    box = (64, tile.depth, 1) if problem.transposed else (tile.depth, tile.width, 1)
    arguments: tuple[Argument, ...] = (
        *given,
        *(TensorMap(weight, box, 128) for weight in problem.weights),
        *after.arguments,
        Tokens(),
    )
    return Kernel(
        name=name,
        source=source,
        includes=("moec/matmul/warpgroups.cuh",),
        threads=tile.threads,
        shared_bytes=tile.shared_bytes(problem.counters),
        grid=DeviceGrid(1),
        arguments=arguments,
        tokens=tokens,
    )
