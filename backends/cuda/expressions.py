"""Scalar `arith` and `math` operations as C++ expressions.

Floats are `float` in registers, whatever they are in memory: a bf16 or f16 value is a `float` that this type can hold,
so that `arith.extf` is nothing and `arith.truncf` rounds.  Helpers of the namespace `moec` stand in `moec/scalar.cuh`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch_mlir import ir

from moec.backends.base import unsupported

HEADER = "moec/scalar.cuh"

REGISTER = {
    "f32": "float", "bf16": "float", "f16": "float",
    "i1": "bool", "i8": "int", "i32": "int", "i64": "moec::i64", "index": "moec::i64",
}  # fmt: skip
"""Element type -> the C++ type of a value in a register."""

MEMORY = {
    "f32": "float", "bf16": "moec::bf16", "f16": "moec::f16",
    "i1": "moec::u8", "i8": "moec::i8", "f8E4M3FN": "moec::e4m3", "i32": "int", "i64": "moec::i64",
}  # fmt: skip
"""Element type -> the C++ type of an element in memory."""

Print = Callable[..., str]


def element_of(type_: ir.Type) -> str:
    """The name of a type, of a tensor's elements if it is one: `f32`."""
    return str(type_.element_type if isinstance(type_, ir.ShapedType) else type_)


def register_type(op: Any, type_: ir.Type) -> str:
    """The C++ type of a value.  Raises Unsupported, with the place of `op`, where there is none."""
    element = element_of(type_)
    if element not in REGISTER:
        raise unsupported("cuda", op, f"values of type {element}")
    return REGISTER[element]


def memory_type(op: Any, type_: ir.Type) -> str:
    """The C++ type of a tensor's elements in memory.  Raises Unsupported, as `register_type` does."""
    element = element_of(type_)
    if element not in MEMORY:
        raise unsupported("cuda", op, f"tensors of {element}")
    return MEMORY[element]


def _call(name: str) -> Print:
    return lambda *operands: f"{name}({', '.join(operands)})"


def _infix(operator: str) -> Print:
    return lambda x, y: f"{x} {operator} {y}"


_FLOATS: dict[str, Print] = {
    "arith.addf": _infix("+"),
    "arith.subf": _infix("-"),
    "arith.mulf": _infix("*"),
    "arith.divf": _infix("/"),
    "arith.negf": lambda x: f"-{x}",
    "arith.maximumf": _call("moec::maximum"),
    "arith.minimumf": _call("moec::minimum"),
    "arith.maxnumf": _call("fmaxf"),
    "arith.minnumf": _call("fminf"),
    "math.exp": _call("expf"),
    "math.exp2": _call("exp2f"),
    "math.expm1": _call("expm1f"),
    "math.log": _call("logf"),
    "math.log2": _call("log2f"),
    "math.log1p": _call("log1pf"),
    "math.sqrt": _call("sqrtf"),
    "math.rsqrt": lambda x: f"1.0f / sqrtf({x})",
    "math.tanh": _call("tanhf"),
    "math.erf": _call("erff"),
    "math.powf": _call("powf"),
    "math.floor": _call("floorf"),
    "math.ceil": _call("ceilf"),
    "math.absf": _call("fabsf"),
    "math.fma": _call("fmaf"),
}

_INTEGERS: dict[str, Print] = {
    "arith.addi": _infix("+"),
    "arith.subi": _infix("-"),
    "arith.muli": _infix("*"),
    "arith.divsi": _infix("/"),
    "arith.remsi": _infix("%"),
    "arith.divui": lambda x, y: f"moec::as_unsigned({x}) / moec::as_unsigned({y})",
    "arith.remui": lambda x, y: f"moec::as_unsigned({x}) % moec::as_unsigned({y})",
    "arith.andi": _infix("&"),
    "arith.ori": _infix("|"),
    "arith.xori": _infix("^"),
    "arith.maxsi": lambda x, y: f"{x} > {y} ? {x} : {y}",
    "arith.minsi": lambda x, y: f"{x} < {y} ? {x} : {y}",
}

DIVISIONS = ("arith.divsi", "arith.remsi", "arith.divui", "arith.remui")
"""Operations that must not see the operands of an element that does not exist."""

# By the number of the predicate; "ordered" is false where an operand is NaN, "unordered" true.
_COMPARE_FLOATS: tuple[Print, ...] = (
    lambda x, y: "false",
    _infix("=="),
    _infix(">"),
    _infix(">="),
    _infix("<"),
    _infix("<="),
    lambda x, y: f"{x} < {y} || {x} > {y}",
    lambda x, y: f"{x} == {x} && {y} == {y}",
    lambda x, y: f"!({x} < {y} || {x} > {y})",
    lambda x, y: f"!({x} <= {y})",
    lambda x, y: f"!({x} < {y})",
    lambda x, y: f"!({x} >= {y})",
    lambda x, y: f"!({x} > {y})",
    _infix("!="),
    lambda x, y: f"{x} != {x} || {y} != {y}",
    lambda x, y: "true",
)


def _unsigned(operator: str) -> Print:
    return lambda x, y: f"moec::as_unsigned({x}) {operator} moec::as_unsigned({y})"


_COMPARE_INTEGERS: tuple[Print, ...] = (
    *map(_infix, ("==", "!=", "<", "<=", ">", ">=")),
    *map(_unsigned, ("<", "<=", ">", ">=")),
)

_CONVERSIONS = (
    "arith.extf", "arith.truncf", "arith.sitofp", "arith.uitofp", "arith.fptosi",
    "arith.extsi", "arith.extui", "arith.trunci", "arith.index_cast", "arith.index_castui",
)  # fmt: skip


_COMPARISONS = {"arith.cmpf": _COMPARE_FLOATS, "arith.cmpi": _COMPARE_INTEGERS}

OPERATIONS = frozenset((*_FLOATS, *_INTEGERS, *_CONVERSIONS, *_COMPARISONS, "arith.select"))
"""The names that `apply` knows."""


def apply(op: Any, operands: Sequence[str]) -> str:
    """The expression of one operation, elementwise or scalar, whose operands are names or literals.

    Raises Unsupported for what has no meaning here.
    """
    operation = op.operation
    name, type_ = operation.name, element_of(operation.results[0].type)
    if name in _FLOATS:
        if type_ != "f32":
            raise unsupported("cuda", operation, f"arithmetic in {type_}: it is done in f32")
        return _FLOATS[name](*operands)
    if name in _INTEGERS:
        register_type(operation, operation.results[0].type)
        return _INTEGERS[name](*operands)
    if name in _COMPARISONS:
        return _COMPARISONS[name][int(ir.IntegerAttr(operation.attributes["predicate"]).value)](*operands)
    if name == "arith.select":
        return f"{operands[0]} ? {operands[1]} : {operands[2]}"
    if name in _CONVERSIONS:
        return _convert(operation, operands[0], element_of(operation.operands[0].type), type_)
    raise unsupported("cuda", operation, "it has no elementwise meaning")


def _convert(operation: ir.Operation, value: str, source: str, target: str) -> str:
    register_type(operation, operation.operands[0].type)
    to = register_type(operation, operation.results[0].type)
    match operation.name:
        case "arith.extf":
            return value
        case "arith.truncf":
            return f"moec::round_{target}({value})"
        case "arith.sitofp" | "arith.fptosi" if target not in ("bf16", "f16") and source != "i1":
            return f"({to}){value}"
        case "arith.uitofp" if target == "f32":
            return f"({to})moec::as_unsigned({value})"
        case "arith.extsi":
            return f"{value} ? -1 : 0" if source == "i1" else f"({to}){value}"
        case "arith.extui" | "arith.index_castui":
            return f"({to})moec::as_unsigned({value})"
        case "arith.trunci" if target == "i1":
            return f"({value} & 1) != 0"
        case "arith.trunci" if target == "i8":
            return f"(moec::i8){value}"
        case "arith.trunci" | "arith.index_cast":
            return f"({to}){value}"
    raise unsupported("cuda", operation, f"a conversion from {source} to {target}")


def literal(op: Any, value: float | int, element: str) -> str:
    """A number of an element type as C++ writes it."""
    if element not in REGISTER:
        raise unsupported("cuda", op, f"values of type {element}")
    if element == "i1":
        return "true" if value else "false"
    if REGISTER[element] != "float":
        # the most negative number has no literal of its own type
        least = -(2 ** (63 if REGISTER[element] == "moec::i64" else 31))
        suffix = "LL" if REGISTER[element] == "moec::i64" else ""
        return f"({value + 1}{suffix} - 1)" if value == least else f"{value}{suffix}"
    number = np.float32(value)
    if np.isnan(number):
        return "moec::not_a_number()"
    if np.isinf(number):
        return "moec::infinity()" if number > 0 else "(-moec::infinity())"
    text = str(number)
    return f"({text}f)" if text.startswith("-") else f"{text}f"


def constant(op: Any) -> str:
    """The literal of an `arith.constant` that is a scalar, or a tensor of one value."""
    operation = op.operation
    attribute = operation.attributes["value"]
    if isinstance(attribute, ir.DenseElementsAttr):
        if not attribute.is_splat:
            raise unsupported("cuda", operation, "a scalar was expected")
        attribute = attribute.get_splat_value()
    return literal(operation, attribute.value, element_of(operation.results[0].type))
