"""The functions of the language as formulas of `arith` and `math`, element by element in f32."""

from __future__ import annotations

import math as number
from collections.abc import Callable

from torch_mlir import ir
from torch_mlir.dialects import arith, math

from moec.frontend.lowering.emit import element_of, shape_of, splat

# Predicates of arith.cmpf (ordered, but != is also true of NaN) and arith.cmpi (signed).
FLOAT_PREDICATES = {"eq": 1, "gt": 2, "ge": 3, "lt": 4, "le": 5, "ne": 13}
INTEGER_PREDICATES = {"eq": 0, "ne": 1, "lt": 2, "le": 3, "gt": 4, "ge": 5}

FLOAT_BINARY: dict[str, Callable[[ir.Value, ir.Value], ir.Value]] = {
    "add": arith.addf,
    "sub": arith.subf,
    "mul": arith.mulf,
    "div": arith.divf,
    "min": arith.minimumf,
    "max": arith.maximumf,
    "pow": math.powf,
}
INTEGER_BINARY: dict[str, Callable[[ir.Value, ir.Value], ir.Value]] = {
    "add": arith.addi,
    "sub": arith.subi,
    "mul": arith.muli,
    "min": arith.minsi,
    "max": arith.maxsi,
    "and": arith.andi,
    "or": arith.ori,
}


def _like(number_: float, a: ir.Value) -> ir.Value:
    return splat(number_, shape_of(a))


def binary(op: str, a: ir.Value, b: ir.Value) -> ir.Value:
    """An arithmetic or comparing operation on two tensors of one shape and element."""
    floating = str(element_of(a)) == "f32"
    if op in FLOAT_PREDICATES:
        return arith.cmpf(FLOAT_PREDICATES[op], a, b) if floating else arith.cmpi(INTEGER_PREDICATES[op], a, b)
    return (FLOAT_BINARY if floating else INTEGER_BINARY)[op](a, b)


def unary(op: str, a: ir.Value) -> ir.Value:
    """A function of one tensor."""
    return _UNARY[op](a)


def _negative(a: ir.Value) -> ir.Value:
    if str(element_of(a)) == "f32":
        return arith.negf(a)
    return arith.subi(splat(0, shape_of(a), "i32"), a)


def _sigmoid(a: ir.Value) -> ir.Value:
    return arith.divf(_like(1.0, a), arith.addf(_like(1.0, a), math.exp(arith.negf(a))))


def _silu(a: ir.Value) -> ir.Value:
    return arith.divf(a, arith.addf(_like(1.0, a), math.exp(arith.negf(a))))


def _gelu(a: ir.Value) -> ir.Value:
    inner = arith.addf(_like(1.0, a), math.erf(arith.mulf(a, _like(number.sqrt(0.5), a))))
    return arith.mulf(arith.mulf(a, _like(0.5, a)), inner)


def _gelu_tanh(a: ir.Value) -> ir.Value:
    cubic = arith.mulf(arith.mulf(arith.mulf(a, a), a), _like(0.044715, a))
    inner = arith.mulf(arith.addf(a, cubic), _like(number.sqrt(2.0 / number.pi), a))
    return arith.mulf(arith.mulf(a, _like(0.5, a)), arith.addf(_like(1.0, a), math.tanh(inner)))


def _softplus(a: ir.Value) -> ir.Value:
    """max(a, 0) + log(1 + exp(-|a|)), which overflows nowhere."""
    tail = math.log1p(math.exp(arith.negf(math.absf(a))))
    return arith.addf(arith.maximumf(a, _like(0.0, a)), tail)


_UNARY: dict[str, Callable[[ir.Value], ir.Value]] = {
    "neg": _negative,
    "not": lambda a: arith.xori(a, splat(True, shape_of(a), "bool")),
    "abs": math.absf,
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
    "rsqrt": math.rsqrt,
    "square": lambda a: arith.mulf(a, a),
    "tanh": math.tanh,
    "relu": lambda a: arith.maximumf(a, _like(0.0, a)),
    "sigmoid": _sigmoid,
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "softplus": _softplus,
}
