"""What scalar `arith` and `math` operations are on vectors, and the evaluation of regions made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import arith

from moec.backends.base import unsupported
from moec.backends.cpu import vmath
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.values import Value, constant

Emit = Callable[..., Value]


def maximum(b: Builder, a: Value, c: Value) -> Value:
    """As `arith.maximumf`: NaN if either is."""
    return b.select(a.is_nan() | (a > c), a, c)


def minimum(b: Builder, a: Value, c: Value) -> Value:
    """As `arith.minimumf`: NaN if either is."""
    return b.select(a.is_nan() | (a < c), a, c)


def _max_number(b: Builder, a: Value, c: Value) -> Value:
    return b.select(c.is_nan() | (a > c), a, c)


def _min_number(b: Builder, a: Value, c: Value) -> Value:
    return b.select(c.is_nan() | (a < c), a, c)


def _div_integers(b: Builder, a: Value, c: Value) -> Value:
    return a / c


def _rem_integers(b: Builder, a: Value, c: Value) -> Value:
    return Value(arith.RemSIOp(a.raw, c.raw).result)


# Operations of floats or integers: operands to result.
PLAIN: dict[str, Emit] = {
    "arith.addf": lambda b, x, y: x + y,
    "arith.subf": lambda b, x, y: x - y,
    "arith.mulf": lambda b, x, y: x * y,
    "arith.divf": lambda b, x, y: x / y,
    "arith.negf": lambda b, x: -x,
    "arith.maximumf": maximum,
    "arith.minimumf": minimum,
    "arith.maxnumf": _max_number,
    "arith.minnumf": _min_number,
    "arith.addi": lambda b, x, y: x + y,
    "arith.subi": lambda b, x, y: x - y,
    "arith.muli": lambda b, x, y: x * y,
    "arith.divsi": _div_integers,
    "arith.remsi": _rem_integers,
    "arith.divui": lambda b, x, y: x // y,
    "arith.remui": lambda b, x, y: x % y,
    "arith.andi": lambda b, x, y: x & y,
    "arith.ori": lambda b, x, y: x | y,
    "arith.xori": lambda b, x, y: x ^ y,
    "arith.maxsi": lambda b, x, y: b.maximum(x, y),
    "arith.minsi": lambda b, x, y: b.minimum(x, y),
    "arith.select": lambda b, c, x, y: b.select(c, x, y),
    "math.exp": vmath.exp,
    "math.exp2": vmath.exp2,
    "math.expm1": vmath.expm1,
    "math.log": vmath.log,
    "math.log2": vmath.log2,
    "math.log1p": vmath.log1p,
    "math.sqrt": vmath.sqrt,
    "math.rsqrt": vmath.rsqrt,
    "math.tanh": vmath.tanh,
    "math.erf": vmath.erf,
    "math.powf": vmath.power,
    "math.floor": vmath.floor,
    "math.ceil": vmath.ceil,
    "math.absf": vmath.absolute,
    "math.fma": lambda b, x, y, z: b.fma(x, y, z),
}

# Operations that change the element type, and whether integers are signed.
CONVERSIONS: dict[str, bool] = {
    "arith.extf": True,
    "arith.truncf": True,
    "arith.sitofp": True,
    "arith.uitofp": False,
    "arith.fptosi": True,
    "arith.extsi": True,
    "arith.extui": False,
    "arith.trunci": True,
    "arith.index_cast": True,
    "arith.index_castui": False,
}

COMPARISONS = {"arith.cmpf": (arith.CmpFOp, arith.CmpFPredicate), "arith.cmpi": (arith.CmpIOp, arith.CmpIPredicate)}


def _bits(element: ir.Type) -> ir.Type:
    """Indices are i64 here."""
    return ir.IntegerType.get_signless(64) if isinstance(element, ir.IndexType) else element


def known(name: str) -> bool:
    """Whether `apply` knows an operation of this name."""
    return name in PLAIN or name in CONVERSIONS or name in COMPARISONS


def _scalar(type_: ir.Type) -> ir.Type:
    return type_.element_type if isinstance(type_, ir.ShapedType) else type_


def apply(b: Builder, op: Any, operands: Sequence[Value]) -> Value:
    """The result of one known operation on vectors of any one number of lanes, or on scalars.

    The operation may itself be on scalars or, elementwise, on tensors.
    """
    operation = op.operation
    name = operation.name
    if name in PLAIN:
        if name.startswith("math.") and str(_scalar(operation.results[0].type)) != "f32":
            raise unsupported("cpu", operation, "mathematical functions take f32")
        return PLAIN[name](b, *operands)
    if name in CONVERSIONS:
        element = _bits(_scalar(operation.results[0].type))
        return b.convert(operands[0], element, signed=CONVERSIONS[name])
    if name in COMPARISONS:
        compare, predicates = COMPARISONS[name]
        predicate = predicates(ir.IntegerAttr(operation.attributes["predicate"]).value)
        return Value(compare(predicate, operands[0].raw, operands[1].raw).result)
    raise unsupported("cpu", operation, "it has no elementwise meaning")


def constant_of(b: Builder, op: Any, lanes: int) -> Value:
    """An `arith.constant` of a scalar (or of a tensor that holds one value), in all of `lanes` lanes (1: a scalar)."""
    attribute = op.operation.attributes["value"]
    if isinstance(attribute, ir.DenseElementsAttr):
        if not attribute.is_splat:
            raise unsupported("cpu", op, "a scalar was expected")
        attribute = attribute.get_splat_value()
    element = _bits(_scalar(op.operation.results[0].type))
    number = attribute.value
    return constant(element if lanes == 1 else b.vec(lanes, element), number)


def evaluate(
    b: Builder,
    region: ir.Region,
    arguments: Sequence[Value],
    lanes: int,
    leaf: Callable[[Any], Value] | None = None,
) -> list[Value]:
    """Emits a region of scalar operations for `lanes` elements at a time (1: scalars); returns what it yields.

    `arguments` stand for the region's arguments.  `leaf` gives the value of a `moe.element` operation, of `lanes` lanes
    and the operation's element type.  Constants may come from outside the region.
    """
    return evaluate_block(b, region.blocks[0], arguments, lanes, leaf=leaf)


def evaluate_block(
    b: Builder,
    block: ir.Block,
    arguments: Sequence[Value],
    lanes: int,
    *,
    leaf: Callable[[Any], Value] | None = None,
    outside: Callable[[ir.Value], Value] | None = None,
    results: Sequence[ir.Value] | None = None,
) -> list[Value]:
    """As `evaluate`; `outside` gives scalars that the block reads from around it, `results` what is asked for instead
    of what the block yields."""
    made: dict[ir.Value, Value] = dict(zip(block.arguments, arguments, strict=True))
    *_, end = block.operations

    def read(raw: ir.Value) -> list[ir.Value]:
        """The values of the block that this one is computed from."""
        if isinstance(raw.owner, ir.Block) or raw.owner.operation.block != block:
            return []
        operation = raw.owner.operation
        return [] if operation.name == "moe.element" and leaf is not None else list(operation.operands)

    def value_of(raw: ir.Value) -> Value:
        pending = [raw]  # not by recursion: a block may be thousands of operations deep
        while pending:
            needs = [] if pending[-1] in made else [one for one in read(pending[-1]) if one not in made]
            pending += reversed(needs)
            if not needs:
                done = pending.pop()
                if done not in made:
                    made[done] = compute(done)
        return made[raw]

    def compute(raw: ir.Value) -> Value:
        owner = raw.owner
        if not isinstance(owner, ir.Block):
            operation = owner.operation
            if operation.name == "arith.constant":
                return constant_of(b, operation, lanes)
            if operation.block == block:
                if operation.name == "moe.element" and leaf is not None:
                    return leaf(owner)
                return apply(b, operation, [made[operand] for operand in operation.operands])
        if outside is None:
            raise unsupported("cpu", end, "its region reads a value from outside that is not a constant")
        scalar = outside(raw)
        return scalar if lanes == 1 else b.splat(b.vec(lanes, scalar.type), scalar)

    return [value_of(raw) for raw in (end.operation.operands if results is None else results)]
