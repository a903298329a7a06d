"""Operations of a row program that move elements: `tensor` ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cuda import expressions
from moec.backends.cuda.rowvalues import Code, Uniform, Value, coordinates, flat, read

DYNAMIC = -(2**63)


def shape_of(value: ir.Value) -> tuple[int, ...]:
    return tuple(value.type.shape) if isinstance(value.type, ir.RankedTensorType) else ()


def _result(op: Any) -> tuple[tuple[int, ...], str]:
    (result,) = op.operation.results
    return shape_of(result), expressions.element_of(result.type)


def _integers(op: Any, name: str) -> list[int]:
    return [int(n) for n in ir.DenseI64ArrayAttr(op.operation.attributes[name])]


def concat(code: Code, op: Any, values: Sequence[Value]) -> Value:
    shape, element = _result(op)
    axis = int(ir.IntegerAttr(op.operation.attributes["dim"]).value)
    sources = code.together(*values)

    def text(r: str, i: str) -> str:
        places = coordinates(i, shape)
        begin, parts = 0, []
        for value, source in zip(values, sources, strict=True):
            mine = [f"{place} - {begin}" if n == axis and begin else place for n, place in enumerate(places)]
            begin += value.shape[axis]
            parts.append((f"{places[axis]} < {begin} ? ", read(source, flat(mine, value.shape))))
        chain = "".join(f"{condition}{found} : " for condition, found in parts[:-1]) + parts[-1][1]
        return code.inside(shape, i, f"({chain})")

    return code.fill(shape, element, text)


def _missing(element: str) -> str:
    """What stands for an element that an index outside of its tensor asks for: NaN, or no expert."""
    return {"float": "moec::not_a_number()", "bool": "false"}.get(expressions.REGISTER[element], "-1")


def extract(code: Code, op: Any, value: Value, places: Sequence[str]) -> Value:
    (source,) = code.together(value)
    found = read(source, flat(places, value.shape))
    checks = [f"moec::as_unsigned({p}) < {n}" for p, n in zip(places, value.shape, strict=True)]
    if checks:
        found = f"{' && '.join(checks)} ? {found} : {_missing(value.element)}"
    return code.uniform((), value.element, found)


def extract_slice(code: Code, op: Any, value: Value, dynamic: Sequence[str]) -> Value:
    offsets, sizes, strides = (_integers(op, f"static_{name}") for name in ("offsets", "sizes", "strides"))
    if DYNAMIC in sizes or any(n != 1 for n in strides):
        raise unsupported("cuda", op, "sizes must be static and strides 1")
    given = iter(dynamic)
    starts = [next(given) if n == DYNAMIC else str(n) for n in offsets]
    shape, element = _result(op)
    if isinstance(value, Uniform):
        return Uniform(shape, element, value.text)
    (source,) = code.together(value)
    limits = zip(starts, offsets, sizes, value.shape, strict=True)
    checks = [f"moec::as_unsigned({a}) <= {n - size}" for a, offset, size, n in limits if offset == DYNAMIC]

    def text(r: str, i: str) -> str:
        places = [
            place if start == "0" else f"{start} + {place}"
            for start, place in zip(starts, coordinates(i, sizes), strict=True)
        ]
        found = read(source, flat(places, value.shape))
        if checks:
            found = f"({' && '.join(checks)} ? {found} : {_missing(element)})"
        return code.inside(shape, i, found)

    return code.fill(shape, element, text)
