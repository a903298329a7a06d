"""What a rank sends for its own tokens, and where the results come back to.

Results come back as rows of f32, in the order in which they were asked for, each chunk's behind the other.  What one
row is depends on the layout: the result of one pair, or a sum over the pairs of a token at one destination.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moec.runtime.parallel.messages import Counts, Messages, Numbers, Pairs, sort, starts

Ints = NDArray[np.int32]

Unit = Literal["pair", "rank", "row"]
"""What one returned row is: the result of a pair; the sum over a token's pairs at one rank; or over those of a row that
travelled, which are at one destination of the hop."""


@dataclass(frozen=True)
class Rules:
    """What does not change from call to call.

    grid         positions of each hop, the first hop first; their product is the number of positions of experts
    slots        experts of a position
    position     this rank's
    chunks       how many
    by_tokens    whether a chunk is a range of tokens; else one of slots
    deduplicate  send a row once to each destination
    local_first  pairs for this rank do not travel
    unit         what one returned row of the first hop is
    """

    grid: tuple[int, ...]
    slots: int
    position: int
    chunks: int
    by_tokens: bool
    deduplicate: bool
    local_first: bool
    unit: Unit

    @property
    def inner(self) -> int:
        """Positions behind one destination of the first hop."""
        return prod(self.grid[1:])

    @property
    def width(self) -> int:
        """Messages of a chunk: one for each destination, and the pairs that do not travel."""
        return self.grid[0] + self.local_first

    def bounds(self, total: int) -> Counts:
        """`[chunks + 1]`: where chunks begin among `total` tokens or slots."""
        return np.arange(self.chunks + 1) * total // self.chunks


@dataclass(frozen=True)
class Departure:
    """The messages of one call: number `chunk * width + destination`, and last in a chunk those that do not travel.

    pairs     in the order of tokens
    messages  how they are sorted
    width     messages of a chunk
    places    i32 [T, K]: the returned row of each of a token's experts, ascending; -1 where there is none.  A row that
              is a sum stands at the first of its experts
    regions   [chunks + 1]: where the returned rows of each chunk begin
    units     [chunks, width]: how many rows come back for each message
    rows, pair_counts  [chunks, positions]: of what travels, how many rows and pairs each position gets in the end
    """

    pairs: Pairs
    messages: Messages
    width: int
    places: Ints
    regions: Counts
    units: Counts
    rows: Counts
    pair_counts: Counts


def depart(index: Ints, weight: NDArray[np.float32], holder: Ints, slot: Ints, rules: Rules) -> Departure:
    """Sort the choices of T tokens into messages.

    index, weight  [T, K]: experts, -1 for none, and their weights
    holder, slot   [T, K]: at which position and in which slot there the copy is that each choice takes
    """
    tokens, most = index.shape
    at = in_order(index, holder, rules)
    row = at // most
    column_of = _ascending(index)
    position, slots = holder.reshape(-1)[at], slot.reshape(-1)[at]
    destination, place = np.divmod(position, rules.inner)
    place = place * rules.slots + slots
    if rules.local_first:
        here = position == rules.position
        destination = np.where(here, rules.grid[0], destination)
        place = np.where(here, slots, place)
    message = destination.astype(np.intp)
    if rules.chunks > 1:
        bounds = rules.bounds(tokens if rules.by_tokens else rules.slots)
        chunk = np.repeat(np.arange(rules.chunks), np.diff(bounds))[row if rules.by_tokens else slots]
        message += chunk * rules.width
    pairs = Pairs(row, place.astype(np.int32, copy=False), weight.reshape(-1)[at])
    messages = sort(message, row, rules.chunks * rules.width, rules.deduplicate)
    begins = _unit_begins(messages, message, position, rules)
    places, regions, units = _returns(messages, begins, column_of, at, tokens, most, rules)
    rows, counts = _finally(messages, message, row, position, rules)
    return Departure(pairs, messages, rules.width, places, regions, units, rows, counts)


def _ascending(index: Ints) -> Ints:
    """`[T, K]`: at which of its token's places each choice stands when they are sorted by expert."""
    found = np.zeros_like(index)
    for column in range(index.shape[1]):
        one = index[:, column : column + 1]
        found += one < index
        found[:, column + 1 :] += one == index[:, column + 1 :]  # the same expert again comes behind
    return found


def in_order(index: Ints, holder: Ints, rules: Rules) -> Numbers:
    """The choices that are some, numbered through `[T, K]`: by token; by position where sums of one stand together."""
    if rules.unit != "rank" or len(rules.grid) == 1:
        return np.flatnonzero(index.reshape(-1) >= 0)
    order = np.argsort(holder, axis=1, kind="stable")
    numbers: Numbers = (order + np.arange(len(index))[:, None] * index.shape[1]).reshape(-1)
    return numbers[index.reshape(-1)[numbers] >= 0]


def _unit_begins(messages: Messages, message: Numbers, position: Ints, rules: Rules) -> NDArray[np.bool_]:
    """`[P]` in the messages' order: does a new returned row begin with this pair?"""
    if rules.unit == "pair":
        return np.ones(len(message), np.bool_)
    begins: NDArray[np.bool_] = messages.first.copy()
    if rules.unit == "rank":
        there = position[messages.order]
        begins[1:] |= there[1:] != there[:-1]
    if rules.local_first:
        begins |= message[messages.order] % rules.width == rules.grid[0]
    return begins


def _returns(
    messages: Messages,
    begins: NDArray[np.bool_],
    column_of: Ints,
    at: Numbers,
    tokens: int,
    most: int,
    rules: Rules,
) -> tuple[Ints, Counts, Counts]:
    total = np.arange(len(begins) + 1) if rules.unit == "pair" else starts(begins.astype(np.int64))
    units = np.diff(total[messages.pair_starts]).reshape(rules.chunks, rules.width)
    in_chunks = units.sum(1)
    # A chunk of tokens has its part of the T * K rows, so that it can be collected by itself.
    regions = rules.bounds(tokens) * most if rules.by_tokens else starts(in_chunks)
    shift = np.repeat(regions[:-1] - starts(in_chunks)[:-1], messages.pairs.reshape(rules.chunks, -1).sum(1))
    place = np.where(begins, total[:-1] + shift, -1)
    places = np.full(tokens * most, -1, np.int32)
    chosen = at[messages.order]
    places[chosen // most * most + column_of.reshape(-1)[chosen]] = place
    return places.reshape(tokens, most), regions, units


def _finally(messages: Messages, message: Numbers, row: Numbers, position: Ints, rules: Rules) -> tuple[Counts, Counts]:
    """Rows and pairs of each chunk that end up at each position, without those that do not travel."""
    if len(rules.grid) == 1:
        rows, pairs = (one.reshape(rules.chunks, rules.width) for one in (messages.rows, messages.pairs))
        return rows[:, : rules.grid[0]], pairs[:, : rules.grid[0]]
    positions = rules.grid[0] * rules.inner
    travels = message % rules.width < rules.grid[0]
    target = (message // rules.width * positions + position)[travels]
    last = sort(target, row[travels], rules.chunks * positions, rules.deduplicate)
    return last.rows.reshape(-1, positions), last.pairs.reshape(-1, positions)
