"""Matmuls in f32, for any types and sizes: the kernel of `moec/matmul/lanes.cuh`."""

from __future__ import annotations

from moec.backends.cuda import expressions
from moec.backends.cuda.kernel import Argument, Buffer, DeviceGrid, Kernel, Scope, TensorPointer, Tokens
from moec.backends.cuda.matmul.problem import Problem, epilogue

THREADS = 256
_FLOATS = 16 * 68

_TEMPLATE = """{epilogue}
MOEC_KERNEL({threads}, 2) {name}({parameters}) {{
  MOEC_SHARED(shared);
  using Tile = moec::LaneTile<{lhs_memory}, {weight}, {sizes}>;
  const {lhs_memory}* const lhs[] = {{{lhs}}};
  {weight} const rhs[] = {{{weights}}};
  moec::multiply_by_lanes<Tile>(shared, lhs, {plan}{{{plan_values}}}, rhs, {epilogue_name}{initial});
}}
"""


def kernel(
    problem: Problem, scope: Scope, wish: str, rows: Buffer | None, rows_type: str, tokens: tuple[int, int | None]
) -> Kernel:
    """The kernel of a product of floats, or of rows in f32 with codes."""
    name = scope.name(wish)
    after = epilogue(problem, scope, wish, rows, rows_type)
    lhs, given, plan_values = problem.operands(scope)
    weight, parameters, weight_arguments, weights = _weights(problem)
    group = 0 if problem.codes is None else problem.codes.group or 0
    sizes = (problem.segments, problem.inner, problem.columns, problem.products, str(problem.transposed).lower(), group)
    source = _TEMPLATE.format(
        epilogue=after.source,
        threads=THREADS,
        name=name,
        parameters=", ".join((*lhs, *parameters, *after.parameters, "int tokens")),
        weight=weight,
        sizes=", ".join(map(str, sizes)),
        lhs_memory=expressions.MEMORY[problem.lhs_type],
        lhs=", ".join(f"lhs{n}" for n in range(problem.segments)),
        weights=weights,
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
        shared_bytes=4 * (_FLOATS * (1 + problem.products) + problem.counters),
        grid=DeviceGrid(2),
        arguments=(*given, *weight_arguments, *after.arguments, Tokens()),
        tokens=tokens,
    )


def _weights(problem: Problem) -> tuple[str, list[str], list[Argument], str]:
    """The C++ type of a weight, a kernel's parameters for all, their arguments, and the values of an array of them."""
    if problem.codes is not None:
        return (problem.codes.weight_type, *problem.codes.parameters())
    pointer = f"const {expressions.MEMORY[problem.type]}*"
    names = [f"weight{n}" for n in range(len(problem.weights))]
    arguments: list[Argument] = [TensorPointer(weight, pointer) for weight in problem.weights]
    return pointer, [f"{pointer} {name}" for name in names], arguments, ", ".join(names)
