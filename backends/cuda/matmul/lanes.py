"""Matmuls in f32, for any types and sizes: the kernel of `moec/matmul/lanes.cuh`."""

from __future__ import annotations

from moec.backends.cuda import expressions
from moec.backends.cuda.kernel import Buffer, DeviceGrid, Kernel, Scope, TensorPointer, Tokens
from moec.backends.cuda.matmul.problem import Problem, epilogue

THREADS = 256
_FLOATS = 16 * 68

_TEMPLATE = """{epilogue}
MOEC_KERNEL({threads}, 2) {name}({parameters}) {{
  MOEC_SHARED(shared);
  using Tile = moec::LaneTile<{lhs_memory}, {type}, {segments}, {inner}, {columns}, {products}, {transposed}>;
  const {lhs_memory}* const lhs[] = {{{lhs}}};
  const {type}* const rhs[] = {{{weights}}};
  moec::multiply_by_lanes<Tile>(shared, lhs, {plan}{{{plan_values}}}, rhs, {epilogue_name}{initial});
}}
"""


def kernel(
    problem: Problem, scope: Scope, wish: str, rows: Buffer | None, rows_type: str, tokens: tuple[int, int | None]
) -> Kernel:
    """The kernel of a product of floats."""
    name = scope.name(wish)
    after = epilogue(problem, scope, wish, rows, rows_type)
    lhs, given, plan_values = problem.operands()
    memory = expressions.MEMORY[problem.type]
    products = problem.products
    weights = [f"weight{n}" for n in range(len(problem.weights))]
    source = _TEMPLATE.format(
        epilogue=after.source,
        threads=THREADS,
        name=name,
        parameters=", ".join(
            (*lhs, *(f"const {memory}* {weight}" for weight in weights), *after.parameters, "int tokens")
        ),
        type=memory,
        segments=problem.segments,
        inner=problem.inner,
        columns=problem.columns,
        products=products,
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
        includes=("moec/matmul/lanes.cuh",),
        threads=THREADS,
        shared_bytes=4 * (_FLOATS * (1 + products) + problem.counters),
        grid=DeviceGrid(2),
        arguments=(
            *given,
            *(TensorPointer(weight, f"const {memory}*") for weight in problem.weights),
            *after.arguments,
            Tokens(),
        ),
        tokens=tokens,
    )
