"""Matmuls of codes for wgmma: the kernel of `moec/matmul/coded_warpgroups.cuh`."""

from __future__ import annotations

from moec.backends.base import unsupported
from moec.backends.cuda import expressions, wgmma
from moec.backends.cuda.kernel import Argument, Buffer, DeviceGrid, Kernel, Scope, Tokens
from moec.backends.cuda.matmul.problem import Problem, epilogue
from moec.backends.cuda.matmul.tile import CodedWarpgroupTile

_TEMPLATE = """{wgmma}
{epilogue}
MOEC_KERNEL({threads}, 1) {name}({parameters}) {{
  MOEC_SHARED(shared);
  using Tile = moec::CodedWarpgroupTile<{types}, {sizes}>;
  const {weight} weights[] = {{{weights}}};
  moec::multiply_codes_by_warpgroups<Tile>(shared, lhs0, {plan}{{{plan_values}}}, weights, {epilogue_name}{initial});
}}
"""


def kernel(
    problem: Problem,
    tile: CodedWarpgroupTile,
    scope: Scope,
    wish: str,
    rows: Buffer | None,
    rows_type: str,
    tokens: tuple[int, int | None],
) -> Kernel:
    """The kernel of a product whose rows are bf16 or f16, and whose weights are codes.  Raises Unsupported."""
    if problem.codes is None:
        raise unsupported("cuda", problem.op, "weights that are no codes, multiplied as such")
    name = scope.name(wish)
    after = epilogue(problem, scope, wish, rows, rows_type)
    lhs, given, plan_values = problem.operands(scope)
    parameters, weight_arguments, values = problem.codes.parameters()
    memory = expressions.MEMORY[problem.lhs_type]
    group = problem.codes.group or 0
    sizes = (group, problem.inner, problem.columns, tile.products, tile.rows, tile.stages)
    arguments: tuple[Argument, ...] = (*given, *weight_arguments, *after.arguments, Tokens())
    source = _TEMPLATE.format(
        wgmma=wgmma.definition_from_registers(problem.lhs_type, tile.rows),
        epilogue=after.source,
        threads=tile.threads,
        name=name,
        parameters=", ".join((*lhs, *parameters, *after.parameters, "int tokens")),
        types=f"{memory}, {problem.codes.code_type}, {problem.codes.scale_type}",
        sizes=", ".join(map(str, sizes)),
        weight=problem.codes.weight_type,
        weights=values,
        plan=problem.plan_type,
        plan_values=plan_values,
        epilogue_name=after.name,
        initial=after.initial,
    )
    return Kernel(
        name=name,
        source=source,
        includes=("moec/matmul/coded_warpgroups.cuh",),
        threads=tile.threads,
        shared_bytes=tile.shared_bytes(problem.counters),
        grid=DeviceGrid(1),
        arguments=arguments,
        tokens=tokens,
    )
