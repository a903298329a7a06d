"""Experts whose weights lie on disk are asked for all at once, before the first of them is multiplied by.

Where a layout says `page`, packed weights are a mapped file of which only a part is in memory.  A kernel that touches
what is not there waits for the pieces that the system reads at a time, one after the other, and the system reads on
beyond the end of an expert.  As the plan tells which experts a call needs, whole experts are read, side by side, and
nothing else.  Memory that is no file is always there, or comes back from swap the same way.
"""

from __future__ import annotations

from torch_mlir import ir

from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import Call
from moec.backends.cpu.sources import At
from moec.backends.cpu.values import Pointer

_PAGE = 4096
"""Bytes; where pages are larger, the system refuses and kernels read as they go."""
_WILLNEED = 3


def fetch(call: Call, offsets: ir.Value) -> None:
    """Behind the plan with these `offsets`, by its thread: of each expert that has rows, the weights of all matmuls."""
    b, frame = call.b, call.frame
    groups = call.pointer(frame.groups[offsets])
    with b.for_(0, b.convert(groups.load(b.i32), b.i64)) as loop:
        expert = b.convert((groups.at(loop.index, 12) + 4).load(b.i32), b.i64)
        for source in frame.fetched[offsets]:
            first = source.stream(call, At(expert, b.index(0), b.index(1)), b.index(0))
            _ask(b, first, source.layout.expert_bytes)


def _ask(b: Builder, first: Pointer, bytes_: int) -> None:
    """Has `bytes_` from `first` on read, if they are not in memory; does not wait for them.

    It takes two looks, at the middle and at the end: the system holds files in large pieces, so that both ends of an
    expert that was let go may be left, and one that is being let go loses its beginning first.
    """
    mincore = b.declare("mincore", [b.ptr, b.i64, b.ptr], b.i32, linkage="external")
    madvise = b.declare("madvise", [b.ptr, b.i64, b.i32], b.i32, linkage="external")
    address, seen = b.integer(first), b.scratch(8)
    there = b.constant(b.i8, 1)
    for at in (bytes_ // 2, bytes_ - 1):
        seen.store(b.constant(b.i8, 1))
        b.call(mincore, b.at_address((address + at) & -_PAGE), b.index(_PAGE), seen)
        there = there & seen.load(b.i8)
    with b.if_(there.equals(0)):
        begin = address & -_PAGE
        b.call(madvise, b.at_address(begin), address + bytes_ - begin, b.constant(b.i32, _WILLNEED))
