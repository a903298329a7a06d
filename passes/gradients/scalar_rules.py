"""How gradients go back through the operations of `arith` and `math`: a table.

A rule takes an operation and the gradient d of its result, and gives what it adds to the gradients of values that it
was computed from.  Rules hold for scalars and for tensors.  Where a function has no derivative, torch's convention
holds: relu is flat at 0, clamp is not at its ends, ties of min and max share, |x| is flat at 0.
"""

import math as numbers
from collections.abc import Callable, Iterable

from torch_mlir import ir
from torch_mlir.dialects import arith, math

from moec.passes.gradients.formulas import AT_LEAST, AT_MOST, EQUAL, GREATER, LESS, like, where_arriving
from moec.passes.rewriting import defining, users
from moec.passes.row_matmuls import is_splat

Part = tuple[ir.Value, Callable[[], ir.Value]]
"""A value and what is added to its gradient, computed only if that is asked for."""

Rule = Callable[[ir.Operation, ir.Value], Iterable[Part]]


def constant_number(value: ir.Value) -> float | None:
    """The number that a value is everywhere, if it is a constant."""
    op = defining(value)
    if op is None:
        return None
    if op.name in ("linalg.broadcast", "tensor.expand_shape", "tensor.collapse_shape"):
        return constant_number(op.operands[0])
    if op.name != "arith.constant":
        return None
    attribute = op.attributes["value"]
    if isinstance(attribute, ir.FloatAttr):
        return float(attribute.value)
    return float(ir.FloatAttr(ir.DenseElementsAttr(attribute).get_splat_value()).value) if is_splat(op) else None


def _add(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
    return [(op.operands[0], lambda: d), (op.operands[1], lambda: d)]


def _sub(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
    return [(op.operands[0], lambda: d), (op.operands[1], lambda: arith.negf(d))]


def _mul(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
    a, b = op.operands
    return [(a, lambda: arith.mulf(d, b)), (b, lambda: arith.mulf(d, a))]


def _one_plus_exp(value: ir.Value) -> ir.Value | None:
    """u where the value is 1 + exp(u)."""
    op = defining(value)
    if op is None or op.name != "arith.addf":
        return None
    for one, power in (op.operands, reversed(list(op.operands))):
        made = defining(power)
        if constant_number(one) == 1.0 and made is not None and made.name == "math.exp":
            return made.operands[0]
    return None


def _div(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
    a, b = op.operands
    result = op.results[0]
    power = _one_plus_exp(b)
    if power is not None:  # a sigmoid(-u): through exp(u), which overflows, inf * 0 would come up

        def through_sigmoid() -> ir.Value:
            one = like(d, 1.0)
            share = result if constant_number(a) == 1.0 else arith.divf(one, b)
            return arith.negf(arith.mulf(arith.mulf(d, result), arith.subf(one, share)))

        return [(a, lambda: arith.divf(d, b)), (power, through_sigmoid)]
    if constant_number(b) is not None:
        return [(a, lambda: arith.divf(d, b))]
    return [
        (a, lambda: where_arriving(d, arith.divf(d, b))),
        (b, lambda: where_arriving(d, arith.negf(arith.mulf(arith.divf(d, b), result)))),
    ]


def _extreme(inside: int, strictly: int) -> Rule:
    """maximumf or minimumf: an operand wins where it compares with the other by `strictly`, with a bound `inside`."""

    def rule(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
        a, b = op.operands
        if constant_number(a) is not None:
            a, b = b, a

        def bounded() -> ir.Value:
            kind = strictly if _is_relu(op, constant_number(b)) else inside
            return arith.select(arith.cmpf(kind, a, b), d, like(d, 0.0))

        def shared(one: ir.Value, other: ir.Value) -> ir.Value:
            half = arith.mulf(d, like(d, 0.5))
            tied = arith.select(arith.cmpf(EQUAL, one, other), half, like(d, 0.0))
            return arith.select(arith.cmpf(strictly, one, other), d, tied)

        if constant_number(b) is None or (op.name == "arith.maximumf" and _in_softplus(a)):
            return [(a, lambda: shared(a, b)), (b, lambda: shared(b, a))]
        return [(a, bounded)]

    return rule


def _is_relu(op: ir.Operation, bound: float | None) -> bool:
    """Whether this is max(v, 0), and not the lower end of a clamp."""
    clamps = any(user.name == "arith.minimumf" for user in users(op.results[0]))
    return op.name == "arith.maximumf" and bound == 0.0 and not clamps


def _in_softplus(a: ir.Value) -> bool:
    """softplus is max(a, 0) + log1p(exp(-|a|)): only with half a slope at 0 does the sum have its derivative there."""
    return any(user.name == "math.absf" for user in users(a))


def _abs(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
    (a,) = op.operands

    def signed() -> ir.Value:
        none = like(d, 0.0)
        below = arith.select(arith.cmpf(LESS, a, none), arith.negf(d), none)
        return arith.select(arith.cmpf(GREATER, a, none), d, below)

    return [(a, signed)]


def _sqrt(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
    (a,), (result,) = op.operands, op.results

    def slope() -> ir.Value:
        value = where_arriving(d, arith.divf(arith.mulf(d, like(d, 0.5)), result))
        none = like(d, 0.0)
        return arith.select(arith.cmpf(EQUAL, result, none), none, value) if _is_square_sum(a) else value

    return [(a, slope)]


def _is_square_sum(a: ir.Value) -> bool:
    """Whether a root of this is a length: flat at 0, as torch's norm."""
    op = defining(a)
    summed = defining(op.operands[0]) if op is not None and op.name == "linalg.reduce" else None
    return summed is not None and summed.name == "arith.mulf" and summed.operands[0] == summed.operands[1]


def _rsqrt(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
    def slope() -> ir.Value:
        (result,) = op.results
        cube = arith.mulf(arith.mulf(result, result), result)
        return where_arriving(d, arith.mulf(arith.mulf(d, like(d, -0.5)), cube))

    return [(op.operands[0], slope)]


def _pow(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
    a, b = op.operands

    def base() -> ir.Value:
        lower = math.powf(a, arith.subf(b, like(b, 1.0)))
        slope = arith.mulf(d, arith.mulf(b, lower))
        return where_arriving(d, arith.select(arith.cmpf(EQUAL, b, like(b, 0.0)), like(d, 0.0), slope))

    def exponent() -> ir.Value:
        slope = arith.mulf(d, arith.mulf(op.results[0], math.log(a)))
        return where_arriving(d, arith.select(arith.cmpf(EQUAL, a, like(a, 0.0)), like(d, 0.0), slope))

    return [(a, base), (b, exponent)]


def _select(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
    mask, a, b = op.operands
    return [
        (a, lambda: arith.select(mask, d, like(d, 0.0))),
        (b, lambda: arith.select(mask, like(d, 0.0), d)),
    ]


def _same(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
    """Rounding and widening: gradients go through."""
    return [(op.operands[0], lambda: d)]


def _flat(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
    return []


def _slope(slope: Callable[[ir.Value, ir.Value], ir.Value], *, guarded: bool = False) -> Rule:
    """A function of one value, by its derivative as a function of (operand, result)."""

    def rule(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
        (a,), (result,) = op.operands, op.results

        def part() -> ir.Value:
            value = arith.mulf(d, slope(a, result))
            return where_arriving(d, value) if guarded else value

        return [(a, part)]

    return rule


def _erf_slope(a: ir.Value, result: ir.Value) -> ir.Value:
    return arith.mulf(like(a, 2.0 / numbers.sqrt(numbers.pi)), math.exp(arith.negf(arith.mulf(a, a))))


def _reciprocal(a: ir.Value) -> ir.Value:
    return arith.divf(like(a, 1.0), a)


RULES: dict[str, Rule] = {
    "arith.addf": _add,
    "arith.subf": _sub,
    "arith.mulf": _mul,
    "arith.divf": _div,
    "arith.negf": lambda op, d: [(op.operands[0], lambda: arith.negf(d))],
    "arith.maximumf": _extreme(AT_LEAST, GREATER),
    "arith.minimumf": _extreme(AT_MOST, LESS),
    "arith.select": _select,
    "arith.extf": _same,
    "arith.truncf": _same,
    "math.absf": _abs,
    "math.exp": _slope(lambda a, result: result, guarded=True),
    "math.log": _slope(lambda a, result: _reciprocal(a), guarded=True),
    "math.log1p": _slope(lambda a, result: _reciprocal(arith.addf(a, like(a, 1.0))), guarded=True),
    "math.sqrt": _sqrt,
    "math.rsqrt": _rsqrt,
    "math.tanh": _slope(lambda a, result: arith.subf(like(a, 1.0), arith.mulf(result, result))),
    "math.erf": _slope(_erf_slope),
    "math.powf": _pow,
    "math.sin": _slope(lambda a, result: math.cos(a)),
    "math.cos": _slope(lambda a, result: arith.negf(math.sin(a))),
    "math.floor": _flat,
    "math.ceil": _flat,
}
