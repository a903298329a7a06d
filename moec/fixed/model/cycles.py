"""Clock cycles of the compute tile; the generated RTL takes exactly as many (tests/backends/hls/rtl)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from moec.fixed.design import Design, Order
from moec.fixed.layout import RECORD_BITS, layout
from moec.fixed.model.choice import choice
from moec.fixed.model.geometry import passes, retired, router, settled
from moec.fixed.model.tile import result_stride
from moec.fixed.spec import Expert


@dataclass(frozen=True)
class Visit:
    """Weights that cross the ports once, and how they are used.

    beats   cycles in which they come in, one beat each
    busy    cycles in which the array works with them
    """

    beats: int
    busy: int


@dataclass(frozen=True)
class TileCycles:
    """Cycles of the tile alone, whose streams never wait, one part after another.

    rows, table   until the rows, and the activation's table, are on the chip
    experts       from the first beat of an expert's weights until the last row's sums are there
    result        until the last of the results has left
    """

    rows: int
    table: int
    experts: int
    result: int


@dataclass(frozen=True)
class Latency:
    """Cycles of a call, one part after another.

    rows, table, experts, result   as TileCycles has them
    route    the gates' weights, all logits, and the choice of experts; where the tile has no router, as if it had one
    waits    those of `experts` in which the array waits for weights
    """

    rows: int
    table: int
    route: int
    experts: int
    result: int
    waits: int

    @property
    def total(self) -> int:
        return self.rows + self.table + self.route + self.experts + self.result


def expert(design: Design, shape: Expert, tokens: int) -> int:
    """Cycles in which the array works on `tokens` rows of one expert."""
    return tokens * passes(design, shape).cycles


def load_expert(design: Design, shape: Expert) -> int:
    """Cycles in which one expert's weights come in through all ports."""
    where = layout(design)
    if shape == design.layer.routed or where.common is None:
        return where.expert.beats
    return where.common.beats


def overlapped(design: Design, visits: Sequence[Visit]) -> int:
    """Cycles of visits one after another, with two weight buffers: the next weights come in while the array works.

    A buffer is free again when the records of the last channels have been read.
    """
    free = [0, 0]
    loaded = ended = 0
    for number, visit in enumerate(visits):
        loaded = max(loaded, free[number % 2]) + visit.beats
        ended = max(loaded, ended) + 1 + visit.busy
        free[number % 2] = ended + retired(design)
    return ended


def visits(design: Design, counts: Sequence[int]) -> list[Visit]:
    """The visits of a call whose routed experts get `counts` tokens; an expert without tokens is not visited.

    In token-major order each token of an expert is a visit.  Shared experts see all tokens, which are as many as all
    counts together divided by the router's slots.
    """
    layer = design.layer
    tokens = ceil(sum(counts) / layer.router.slots)
    shapes = [(layer.routed, count) for count in counts if count]
    if layer.common is not None and tokens:
        shapes += [(layer.common, tokens)] * layer.shared
    if design.order is Order.TOKEN:
        shapes = [(shape, 1) for shape, count in shapes for _ in range(count)]
    known = {one: Visit(load_expert(design, one[0]), expert(design, *one)) for one in set(shapes)}
    return [known[one] for one in shapes]


def logits(design: Design, tokens: int) -> int:
    """Cycles of a gate's weights and the logits of a task's tokens; 0 where there are none."""
    if not tokens:
        return 0
    gate = Visit(layout(design).gate.beats, tokens * router(design).cycles)
    return overlapped(design, [gate]) + settled(design)


def route(design: Design, tasks: Sequence[int]) -> int:
    """Cycles of gates, logits and choices, where so many tokens have each of the tasks."""
    tokens = sum(tasks)
    return sum(logits(design, count) for count in tasks) + (choice(design, tokens) if tokens else 0)


def even_tasks(design: Design, tokens: int) -> list[int]:
    """Tokens of each task, as evenly as can be."""
    fewest, more = divmod(tokens, design.layer.router.tasks)
    return [fewest + (task < more) for task in range(design.layer.router.tasks)]


def call(design: Design, counts: Sequence[int], tasks: Sequence[int] | None = None) -> Latency:
    """The cycles of a call whose routed experts get `counts` tokens, and whose tasks have so many (None: evenly)."""
    tokens = ceil(sum(counts) / design.layer.router.slots)
    visited = visits(design, counts)
    parts = tile(design, visited, tokens)
    return Latency(
        rows=parts.rows,
        table=parts.table,
        route=route(design, even_tasks(design, tokens) if tasks is None else tasks),
        experts=parts.experts,
        result=parts.result,
        waits=overlapped(design, visited) - sum(visit.busy for visit in visited),
    )


def planned(design: Design, experts: Iterable[int], counts: Iterable[int]) -> list[Visit]:
    """Visits of experts by their numbers, shared ones behind the routed ones, each with a number of rows."""
    layer, found = design.layer, []
    for number, count in zip(experts, counts, strict=True):
        shape = layer.routed if number < layer.experts or layer.common is None else layer.common
        found.append(Visit(load_expert(design, shape), expert(design, shape, int(count))))
    return found


def tile(design: Design, visited: Sequence[Visit], tokens: int) -> TileCycles:
    """The tile's cycles for visits, of which there may be none; the generated RTL takes exactly as many."""
    where = layout(design)
    entries = where.beat_bits // RECORD_BITS
    return TileCycles(
        rows=tokens * where.input_words,
        table=where.table.beats * (1 + entries),
        experts=overlapped(design, visited) + settled(design) if visited else 0,
        result=tokens * result_stride(design) + 2 if tokens else 0,
    )
