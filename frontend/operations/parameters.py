"""Operations that own parameters: linear, param, buffer."""

from __future__ import annotations

from moec.frontend.graph import DType, Node, TensorType
from moec.frontend.mistake import Mistake
from moec.frontend.operations.site import Given, Site


def linear(site: Site, v: Given, width: Given, bias: Given | None, dtype: DType | None) -> Node:
    """W v (+ b), W [n, m] of a vector [m]; accumulated in f32."""
    vector = site.vector(v)
    n = site.whole(width, "the width")
    unit = site.unit
    stored = _floating(site, dtype or unit.dtype)
    name = site.own_name("linear")
    with_bias = site.truth(bias, "`bias`") if bias else False
    shape = (n, vector.type.shape[0])
    weight = unit.parameter(f"{name}.weight", shape, stored, "parameter", site.span, linear=dtype is None)
    operands: tuple[Node, ...] = (vector, weight)
    if with_bias:
        operands = (*operands, unit.parameter(f"{name}.bias", (n,), stored, "parameter", site.span))
    return site.node("linear", operands, TensorType((n,)))


def param(site: Site, shape: list[Given], dtype: DType | None) -> Node:
    """A parameter of this shape, as it is."""
    return _owned(site, shape, _floating(site, dtype or site.unit.dtype), "parameter")


def buffer(site: Site, shape: list[Given], dtype: DType | None) -> Node:
    """A tensor that is not trained: kept with the parameters, f32 unless it says otherwise."""
    return _owned(site, shape, dtype or DType.F32, "buffer")


def _owned(site: Site, shape: list[Given], dtype: DType, role: str) -> Node:
    sizes = tuple(site.whole(g, "a size") for g in shape)
    return site.unit.parameter(site.own_name(site.name), sizes, dtype, role, site.span)


def _floating(site: Site, dtype: DType) -> DType:
    if dtype is DType.I32:
        raise Mistake(
            "E0302",
            f"what `{site.name}` owns is trained, so it cannot be i32",
            site.span,
            fix="whole numbers are kept in a `buffer(...) : i32`",
        )
    return dtype
