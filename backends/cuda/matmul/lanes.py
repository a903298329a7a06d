"""Matmuls in f32, for any types and sizes: the kernel of `moec/matmul/lanes.cuh`."""

from __future__ import annotations

from moec.backends.cuda import expressions
from moec.backends.cuda.kernel import Argument, Buffer, Kernel, Scope, TensorPointer
from moec.backends.cuda.matmul import launch
from moec.backends.cuda.matmul.problem import Problem, epilogue

THREADS = 256
_FLOATS = 16 * 68

_STATEMENTS = """  using Tile = moec::LaneTile<{lhs_memory}, {weight}, {sizes}>;
  const {lhs_memory}* const lhs[] = {{{lhs}}};
  {weight} const rhs[] = {{{weights}}};
  moec::multiply_by_lanes<Tile>(shared, lhs, {plan}{{{plan_values}}}, rhs, {epilogue_name}{initial});
"""


def kernel(
    problem: Problem, scope: Scope, wish: str, rows: Buffer | None, rows_type: str, tokens: tuple[int, int | None]
) -> Kernel:
    """The kernel of a product of floats, or of rows in f32 with codes."""
    return launch.alone(body(problem, scope, wish, rows, rows_type), scope.name(wish), tokens)


def body(problem: Problem, scope: Scope, wish: str, rows: Buffer | None, rows_type: str) -> launch.Body:
    """What it does."""
    after = epilogue(problem, scope, wish, rows, rows_type)
    given = problem.operands(scope)
    weight, parameters, weight_arguments, weights = _weights(problem)
    group = 0 if problem.codes is None else problem.codes.group or 0
    sizes = (problem.segments, problem.inner, problem.columns, problem.products, str(problem.transposed).lower(), group)
    return launch.Body(
        before=given.before + after.source,
        parameters=(*given.parameters, *parameters, *after.parameters),
        arguments=(*given.arguments, *weight_arguments, *after.arguments),
        statements=_STATEMENTS.format(
            weight=weight,
            sizes=", ".join(map(str, sizes)),
            lhs_memory=expressions.MEMORY[problem.lhs_type],
            lhs=", ".join(f"lhs{n}" for n in range(problem.segments)),
            weights=weights,
            plan=given.plan,
            plan_values=given.values,
            epilogue_name=after.name,
            initial=after.initial,
        ),
        includes=("moec/matmul/lanes.cuh",),
        threads=THREADS,
        blocks=2,
        shared_bytes=4 * (_FLOATS * (1 + problem.products) + problem.counters),
    )


def _weights(problem: Problem) -> tuple[str, list[str], list[Argument], str]:
    """The C++ type of a weight, a kernel's parameters for all, their arguments, and the values of an array of them."""
    if problem.codes is not None:
        return (problem.codes.weight_type, *problem.codes.parameters())
    pointer = f"const {expressions.MEMORY[problem.type]}*"
    names = [f"weight{n}" for n in range(len(problem.weights))]
    arguments: list[Argument] = [TensorPointer(weight, pointer) for weight in problem.weights]
    return pointer, [f"{pointer} {name}" for name in names], arguments, ", ".join(names)
