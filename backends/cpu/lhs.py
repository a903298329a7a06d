"""Rows as the microkernel takes them: copied from where they lie, padded, or widened to f32."""

from __future__ import annotations

from torch_mlir import ir

from moec.backends.cpu.builder import Builder
from moec.backends.cpu.codes import CodePanels
from moec.backends.cpu.frame import LINE, Storage, copy_bytes
from moec.backends.cpu.layout import Arithmetic, Panels
from moec.backends.cpu.values import Pointer, byte_width


def lies_ready(layout: Panels, rows: Storage) -> bool:
    """Whether rows can be multiplied where they lie.

    They must lie one behind the other, be of the right type and whole steps, if need be with a zero behind, and not all
    begin in the same set of the first-level cache.
    """
    if rows.listed or rows.stride % 4096 == 0:
        return False
    if layout.arithmetic.integers:
        return True
    if isinstance(layout, CodePanels):
        whole = layout.padded_inner == layout.inner
    else:
        whole = layout.inner % layout.elements_per_step == 0 or rows.zeros_behind
    return whole and str(rows.element) == ("bf16" if layout.arithmetic is Arithmetic.PAIRS else "f32")


def copy_row(b: Builder, layout: Panels, source: Pointer, element: ir.Type, to: Pointer, ahead: Pointer) -> None:
    """One row, while `ahead`, one that is copied later, is prefetched: rows of different tokens lie apart, so that the
    hardware's prefetcher begins anew with each.  Rows of integers have been made ready by `moe.quantize_rows`."""
    if layout.arithmetic.integers:
        _copy_lines(b, source, layout.row_bytes, to, ahead)
    elif not isinstance(layout, CodePanels):
        _copy(b, layout, source, element, layout.inner, to, ahead)
        if layout.arithmetic is Arithmetic.PAIRS and layout.inner % layout.elements_per_step:
            (to + layout.inner * byte_width(element)).store(b.constant(b.i16, 0))
    elif layout.padded_inner == layout.inner:
        _copy(b, layout, source, element, layout.inner, to, ahead)
    else:
        b.intrinsic("llvm.memset", None, to, b.constant(b.i8, 0), b.index(layout.row_bytes), b.constant(b.i1, 0))
        group_bytes = layout.group * byte_width(element)
        with b.for_(0, layout.scale_groups) as loop:
            here, later = source.at(loop.index, group_bytes), ahead.at(loop.index, group_bytes)
            _copy(b, layout, here, element, layout.group, to.at(loop.index, layout.row.group_bytes), later)


def _copy(
    b: Builder, layout: Panels, source: Pointer, element: ir.Type, count: int, to: Pointer, ahead: Pointer
) -> None:
    if layout.arithmetic is Arithmetic.PAIRS or str(element) == "f32":
        _copy_lines(b, source, count * byte_width(element), to, ahead)
        return
    lanes = layout.lanes
    whole = count // lanes * lanes
    with b.for_(0, whole, lanes) as loop:
        ahead.at(loop.index, 2).prefetch()
        to.at(loop.index, 4).store(b.convert(source.at(loop.index, 2).load(b.vec(lanes, element)), b.f32))
    with b.for_(whole, count) as loop:
        to.at(loop.index, 4).store(b.convert(source.at(loop.index, 2).load(element), b.f32))


def _copy_lines(b: Builder, source: Pointer, bytes_: int, to: Pointer, ahead: Pointer) -> None:
    """In vectors: a call of memcpy takes longer for a row of a few KiB."""
    width = b.variant.vector_bytes
    vector = b.vec(b.variant.lanes, b.f32)
    whole = bytes_ // LINE * LINE
    with b.for_(0, whole, LINE) as loop:
        (ahead + loop.index).prefetch()
        for at in range(0, LINE, width):
            (to + loop.index + at).store((source + loop.index + at).load(vector))
    if whole < bytes_:
        copy_bytes(b, to + whole, source + whole, bytes_ - whole)
