"""Matmuls of codes for wgmma: the kernel of `moec/matmul/coded_warpgroups.cuh`."""

from __future__ import annotations

from moec.backends.base import unsupported
from moec.backends.cuda import expressions, wgmma
from moec.backends.cuda.kernel import Buffer, Scope
from moec.backends.cuda.matmul import launch
from moec.backends.cuda.matmul.problem import Problem, epilogue
from moec.backends.cuda.matmul.tile import CodedWarpgroupTile

_STATEMENTS = """  using Tile = moec::CodedWarpgroupTile<{types}, {sizes}>;
  const {weight} weights[] = {{{weights}}};
  moec::multiply_codes_by_warpgroups<Tile>(shared, lhs0, {plan}{{{plan_values}}}, weights, {epilogue_name}{initial});
"""


def body(
    problem: Problem, tile: CodedWarpgroupTile, scope: Scope, wish: str, rows: Buffer | None, rows_type: str
) -> launch.Body:
    """What the kernel of a product does whose rows are bf16 or f16 and whose weights are codes.  Raises Unsupported."""
    if problem.codes is None:
        raise unsupported("cuda", problem.op, "weights that are no codes, multiplied as such")
    after = epilogue(problem, scope, wish, rows, rows_type)
    given = problem.operands(scope)
    parameters, weight_arguments, values = problem.codes.parameters()
    memory = expressions.MEMORY[problem.lhs_type]
    group = problem.codes.group or 0
    sizes = (group, problem.inner, problem.columns, tile.products, tile.rows, tile.stages)
    instruction = wgmma.definition_from_registers(problem.lhs_type, tile.rows)
    return launch.Body(
        before=f"{instruction}\n{given.before}{after.source}",
        parameters=(*given.parameters, *parameters, *after.parameters),
        arguments=(*given.arguments, *weight_arguments, *after.arguments),
        statements=_STATEMENTS.format(
            types=f"{memory}, {problem.codes.code_type}, {problem.codes.scale_type}",
            sizes=", ".join(map(str, sizes)),
            weight=problem.codes.weight_type,
            weights=values,
            plan=given.plan,
            plan_values=given.values,
            epilogue_name=after.name,
            initial=after.initial,
        ),
        includes=("moec/matmul/coded_warpgroups.cuh",),
        threads=tile.threads,
        blocks=1,
        shared_bytes=tile.shared_bytes(problem.counters),
    )
