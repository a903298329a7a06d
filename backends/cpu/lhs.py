"""Rows as the microkernel takes them: copied from where they lie, padded, or widened to f32."""

from __future__ import annotations

from torch_mlir import ir

from moec.backends.cpu.builder import Builder
from moec.backends.cpu.codes import CodePanels
from moec.backends.cpu.frame import Storage, copy_bytes
from moec.backends.cpu.layout import Arithmetic, Panels
from moec.backends.cpu.values import Pointer, byte_width


def lies_ready(layout: Panels, rows: Storage) -> bool:
    """Whether rows can be multiplied where they lie.

    They must be of the right type and whole steps, if need be with a zero behind, and not all begin in the same set of
    the first-level cache.
    """
    if rows.stride % 4096 == 0:
        return False
    if layout.arithmetic.integers:
        return True
    if isinstance(layout, CodePanels):
        whole = layout.padded_inner == layout.inner
    else:
        whole = layout.inner % layout.elements_per_step == 0 or rows.zeros_behind
    return whole and str(rows.element) == ("bf16" if layout.arithmetic is Arithmetic.PAIRS else "f32")


def copy_row(b: Builder, layout: Panels, source: Pointer, element: ir.Type, to: Pointer) -> None:
    """One row; rows of integers have been made ready by `moe.quantize_rows`."""
    if layout.arithmetic.integers:
        copy_bytes(b, to, source, layout.row_bytes)
    elif not isinstance(layout, CodePanels):
        _copy(b, layout, source, element, layout.inner, to)
        if layout.arithmetic is Arithmetic.PAIRS and layout.inner % layout.elements_per_step:
            (to + layout.inner * byte_width(element)).store(b.constant(b.i16, 0))
    elif layout.padded_inner == layout.inner:
        _copy(b, layout, source, element, layout.inner, to)
    else:
        b.intrinsic("llvm.memset", None, to, b.constant(b.i8, 0), b.index(layout.row_bytes), b.constant(b.i1, 0))
        with b.for_(0, layout.scale_groups) as loop:
            here = source.at(loop.index, layout.group * byte_width(element))
            _copy(b, layout, here, element, layout.group, to.at(loop.index, layout.row.group_bytes))


def _copy(b: Builder, layout: Panels, source: Pointer, element: ir.Type, count: int, to: Pointer) -> None:
    if layout.arithmetic is Arithmetic.PAIRS or str(element) == "f32":
        copy_bytes(b, to, source, count * byte_width(element))
        return
    lanes = layout.lanes
    whole = count // lanes * lanes
    with b.for_(0, whole, lanes) as loop:
        to.at(loop.index, 4).store(b.convert(source.at(loop.index, 2).load(b.vec(lanes, b.bf16)), b.f32))
    with b.for_(whole, count) as loop:
        to.at(loop.index, 4).store(b.convert(source.at(loop.index, 2).load(b.bf16), b.f32))
