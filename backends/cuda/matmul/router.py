"""Matmuls with f32 weights, as routers have them: on tensor cores for many tokens, by dot products for few."""

from __future__ import annotations

from moec.backends.cuda import expressions
from moec.backends.cuda.kernel import Buffer, DeviceGrid, Kernel, Scope, TensorPointer, Tokens
from moec.backends.cuda.matmul.problem import Problem, epilogue

MOST_TOKENS_OF_DOTS = 64
_STAGES = 3
_STAGE_BYTES = 128 * 128 + 64 * 256

_SPLIT = """{epilogue}
MOEC_KERNEL(256, 1) {name}({parameters}) {{
  MOEC_SHARED(shared);
  using Tile = moec::SplitTile<{inner}, {columns}, {stages}{narrow}>;
  moec::multiply_by_split<Tile>(shared, lhs0, {plan}{{{plan_values}}}, weight0, {epilogue_name}{initial});
}}
"""

_DOTS = """{epilogue}
MOEC_KERNEL(256, 2) {name}({parameters}) {{
  using Tile = moec::DotTile<{lhs_type}, {type}, {inner}, {columns}, {products}>;
  const {type}* const rhs[] = {{{weights}}};
  moec::multiply_by_dots<Tile>(lhs0, tokens, rhs, {epilogue_name}{initial});
}}
"""


def can_split(of: Problem) -> bool:
    """Whether `split_kernel` does this product."""
    simple = of.products == 1 and of.segments == 1 and not of.transposed
    return simple and of.lhs_type in ("bf16", "f16") and of.type == "f32" and of.inner % 8 == 0


def can_dot(of: Problem) -> bool:
    """Whether `dots_kernel` does this product."""
    return of.offsets is None and of.segments == 1 and not of.transposed


def split_kernel(
    of: Problem, scope: Scope, rows: Buffer | None, rows_type: str, tokens: tuple[int, int | None]
) -> Kernel:
    """bf16 or f16 rows times f32 weights, each as three bf16 (f16 as two), on tensor cores."""
    return _kernel(of, scope, "product_split", _SPLIT, "split", rows, rows_type, tokens)


def dots_kernel(
    of: Problem, scope: Scope, rows: Buffer | None, rows_type: str, tokens: tuple[int, int | None]
) -> Kernel:
    """Floats in f32: a warp for each column and a few rows."""
    return _kernel(of, scope, "product_dots", _DOTS, "dots", rows, rows_type, tokens)


def _kernel(
    of: Problem,
    scope: Scope,
    wish: str,
    template: str,
    header: str,
    rows: Buffer | None,
    rows_type: str,
    tokens: tuple[int, int | None],
) -> Kernel:
    name = scope.name(wish)
    after = epilogue(of, scope, wish, rows, rows_type)
    given = of.operands(scope)
    memory = expressions.MEMORY[of.type]
    weights = [f"weight{n}" for n in range(of.products)]
    source = template.format(
        epilogue=after.source,
        name=name,
        parameters=", ".join(
            (*given.parameters, *(f"const {memory}* {weight}" for weight in weights), *after.parameters, "int tokens")
        ),
        lhs_type=expressions.MEMORY[of.lhs_type],
        type=memory,
        inner=of.inner,
        columns=of.columns,
        products=of.products,
        stages=_STAGES,
        narrow="" if of.lhs_type == "bf16" else f", {expressions.MEMORY[of.lhs_type]}",
        weights=", ".join(weights),
        plan=given.plan,
        plan_values=given.values,
        epilogue_name=after.name,
        initial=after.initial,
    )
    split = template is _SPLIT
    return Kernel(
        name=name,
        source=source,
        includes=(f"moec/matmul/{header}.cuh",),
        threads=256,
        shared_bytes=_STAGES * _STAGE_BYTES + 4 * of.counters if split else 0,
        grid=DeviceGrid(1 if split else 2),
        arguments=(
            *given.arguments,
            *(TensorPointer(weight, f"const {memory}*") for weight in of.weights),
            *after.arguments,
            Tokens(),
        ),
        tokens=tokens,
    )
