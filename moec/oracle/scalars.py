"""What `arith` and `math` operations compute, on float64, integer and bool arrays of any shape.

A `truncf` to bf16, f16 or f32 rounds to nearest even, so that the oracle follows the roundings that the IR asks for;
everything between is float64.
"""

import math
from collections.abc import Callable

import numpy as np
from torch_mlir import ir

from moec.oracle.scope import Array, Meaning, Scope, element_type, integer

_erf = np.vectorize(math.erf, otypes=[np.float64])


def round_bf16(values: Array) -> Array:
    """Nearest bfloat16 (ties to even) of every value, as float64.  NaN stays NaN."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    kept = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    rounded: Array = np.where(np.isnan(values), np.nan, kept.view(np.float32).astype(np.float64))
    return rounded


def round_to(values: Array, element: ir.Type) -> Array:
    """`values` rounded to the floating-point type `element`."""
    match str(element):
        case "bf16":
            return round_bf16(values)
        case "f16":
            with np.errstate(over="ignore"):  # beyond 65504 lies infinity
                return values.astype(np.float16).astype(np.float64)
        case "f32":
            return values.astype(np.float32).astype(np.float64)
        case _:
            return values


UNARY: dict[str, Callable[[Array], Array]] = {
    "arith.negf": np.negative,
    "math.absf": np.abs,
    "math.exp": np.exp,
    "math.exp2": np.exp2,
    "math.expm1": np.expm1,
    "math.log": np.log,
    "math.log1p": np.log1p,
    "math.log2": np.log2,
    "math.sqrt": np.sqrt,
    "math.rsqrt": lambda a: 1.0 / np.sqrt(a),
    "math.tanh": np.tanh,
    "math.erf": _erf,
    "math.floor": np.floor,
    "math.ceil": np.ceil,
    "math.sin": np.sin,
    "math.cos": np.cos,
    "arith.extf": lambda a: a,
    "arith.sitofp": lambda a: a.astype(np.float64),
    "arith.uitofp": lambda a: a.astype(np.float64),
}

BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "arith.addf": np.add,
    "arith.subf": np.subtract,
    "arith.mulf": np.multiply,
    "arith.divf": np.divide,
    "arith.maximumf": np.maximum,
    "arith.minimumf": np.minimum,
    "arith.maxnumf": np.fmax,
    "arith.minnumf": np.fmin,
    "math.powf": np.power,
    "arith.addi": np.add,
    "arith.subi": np.subtract,
    "arith.muli": np.multiply,
    "arith.divsi": lambda a, b: np.trunc(a / b).astype(np.int64),
    "arith.divui": np.floor_divide,
    "arith.remsi": np.fmod,
    "arith.remui": np.fmod,
    "arith.andi": np.bitwise_and,
    "arith.ori": np.bitwise_or,
    "arith.xori": np.bitwise_xor,
    "arith.maxsi": np.maximum,
    "arith.minsi": np.minimum,
}

Compare = Callable[[Array, Array], Array]

# In the order of arith.cmpi's predicate numbers; all values here are non-negative or signed the same way.
COMPARE_INT: list[Compare] = [
    np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal,
    np.less, np.less_equal, np.greater, np.greater_equal,
]  # fmt: skip


def _unordered(compare: Compare) -> Compare:
    return lambda a, b: compare(a, b) | np.isnan(a) | np.isnan(b)


def _ordered(compare: Compare) -> Compare:
    return lambda a, b: compare(a, b) & ~np.isnan(a) & ~np.isnan(b)


_FLOAT: list[Compare] = [np.equal, np.greater, np.greater_equal, np.less, np.less_equal, np.not_equal]

# In the order of arith.cmpf's predicate numbers.
COMPARE_FLOAT: list[Compare] = [
    lambda a, b: np.zeros(np.broadcast(a, b).shape, bool),
    *map(_ordered, _FLOAT),
    _ordered(lambda a, b: np.ones(np.broadcast(a, b).shape, bool)),
    *map(_unordered, _FLOAT),
    _unordered(lambda a, b: np.zeros(np.broadcast(a, b).shape, bool)),
    lambda a, b: np.ones(np.broadcast(a, b).shape, bool),
]

# Over the axes given as `axis`.
REDUCTIONS: dict[str, Callable[..., Array]] = {
    "arith.addf": np.sum,
    "arith.mulf": np.prod,
    "arith.maximumf": np.max,
    "arith.minimumf": np.min,
    "arith.maxnumf": np.fmax.reduce,
    "arith.minnumf": np.fmin.reduce,
    "arith.addi": np.sum,
    "arith.ori": np.any,
    "arith.andi": np.all,
}


def _unary(compute: Callable[[Array], Array]) -> Meaning:
    return lambda op, inputs, scope: [compute(inputs[0])]


def _binary(compute: Callable[[Array, Array], Array]) -> Meaning:
    return lambda op, inputs, scope: [compute(inputs[0], inputs[1])]


def _compare(table: list[Compare]) -> Meaning:
    return lambda op, inputs, scope: [table[integer(op, "predicate")](inputs[0], inputs[1])]


def _truncf(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    return [round_to(inputs[0], element_type(op.results[0].type))]


def _integers(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    return [inputs[0].astype(np.int64)]


MEANING: dict[str, Meaning] = {
    **{name: _unary(compute) for name, compute in UNARY.items()},
    **{name: _binary(compute) for name, compute in BINARY.items()},
    "arith.truncf": _truncf,
    "arith.cmpi": _compare(COMPARE_INT),
    "arith.cmpf": _compare(COMPARE_FLOAT),
    "arith.select": lambda op, inputs, scope: [np.where(*inputs)],
    "arith.index_cast": _integers,
    "arith.fptosi": _integers,
    "arith.extsi": _integers,
    "arith.extui": _integers,
    "arith.trunci": _integers,
}
