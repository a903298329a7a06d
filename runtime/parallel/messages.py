"""From pairs of a token and an expert to messages: one for each destination of each chunk.

A **pair** is one token's row for one expert: which row, which expert's place at the destination, which weight.  A
**message** holds the pairs for one destination and every row that they need, once:

    [12 bytes for each pair, filled up to whole rows][rows]

so that all of what a process receives is one tensor of rows, in which the first rows of each message are no rows, and
the kernels read it as it came.  A pair is (number of its row in the message, place, weight): two i32 and an f32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

PAIR_BYTES = 12

Counts = NDArray[np.int64]
Numbers = NDArray[np.intp]


@dataclass(frozen=True)
class Pairs:
    """P pairs; those of one row stand together, in the order in which their results are added up.

    row     [P] which row of the tensor that holds the rows, ascending
    place   i32 [P] what to compute, as the destination reads it: the slot of an expert there, for example
    weight  f32 [P]
    """

    row: Numbers
    place: NDArray[np.int32]
    weight: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class Messages:
    """How pairs become messages; the messages in order, pairs and rows of one message ascending by row.

    order   [P] the pairs, by message
    pairs   [M] how many pairs each message has
    rows    [M] how many rows
    within  i32 [P] of each pair in `order`, the number of its row in its message
    first   [P] of each pair in `order`: is it the first one of its row in its message?
    sent    [U] for the rows of all messages in order: which row of the tensor that holds the rows
    """

    order: Numbers
    pairs: Counts
    rows: Counts
    within: NDArray[np.int32]
    first: NDArray[np.bool_]
    sent: Numbers

    @cached_property
    def pair_starts(self) -> Counts:
        """[M + 1] where the pairs of each message begin in `order`."""
        return starts(self.pairs)

    @cached_property
    def row_starts(self) -> Counts:
        """[M + 1] where the rows of each message begin in `sent`."""
        return starts(self.rows)


def starts(sizes: Counts) -> Counts:
    """`[n + 1]`: where each of n neighbours begins, and where the last one ends."""
    found = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=found[1:])
    return found


def sort(message: Numbers, row: Numbers, messages: int, deduplicate: bool) -> Messages:
    """Sort pairs into messages.

    message      [P] the message of each pair, below `messages`
    row          [P] its row; ascending among the pairs of a message
    deduplicate  a message holds a row once; else each pair has one of its own
    """
    # NumPy sorts numbers of 16 bits by their digits: many times as fast as wider ones.
    key = message.astype(np.uint16) if messages <= 2**16 else message
    order = np.argsort(key, kind="stable")
    pairs = np.bincount(message, minlength=messages)
    sorted_messages, sorted_rows = key[order], row[order]
    first = np.ones(len(order), np.bool_)
    if deduplicate:
        first[1:] = (sorted_rows[1:] != sorted_rows[:-1]) | (sorted_messages[1:] != sorted_messages[:-1])
    rows = np.bincount(sorted_messages[first], minlength=messages)
    within = np.cumsum(first) - 1 - np.repeat(starts(rows)[:-1], pairs)
    return Messages(order, pairs, rows, within.astype(np.int32), first, sorted_rows[first])


def lead(pairs: Counts, row_bytes: int) -> Counts:
    """How many rows the pairs of messages take."""
    return -(-pairs * PAIR_BYTES // row_bytes)


def heights(pairs: Counts, rows: Counts, row_bytes: int) -> Counts:
    """How many rows messages have, their pairs' rows included."""
    return lead(pairs, row_bytes) + rows


def metadata(pairs: Pairs, messages: Messages) -> NDArray[np.int32]:
    """`[P, 3]`: what messages say of their pairs, in `order`."""
    found = np.empty((len(pairs), 3), np.int32)
    found[:, 0] = messages.within
    found[:, 1] = pairs.place[messages.order]
    found[:, 2] = pairs.weight.view(np.int32)[messages.order]
    return found


def write(
    out: torch.Tensor, rows: torch.Tensor, messages: Messages, described: NDArray[np.int32], first: int, last: int
) -> None:
    """Write the messages from `first` up to, not with, `last` into `out`.

    out        [sum of heights, row bytes / item size] of the dtype of `rows`, contiguous
    rows       [n, the same] what `messages.sent` counts
    described  what `metadata` gives
    """
    row_bytes = out.shape[1] * out.element_size()
    pair_starts, row_starts = messages.pair_starts, messages.row_starts
    pairs, counts = messages.pairs[first:last], messages.rows[first:last]
    leads = lead(pairs, row_bytes)
    begins = starts(leads + counts)
    if not begins[-1]:
        return
    # All rows in one go; what stands in the place of pairs meanwhile does not matter.
    chosen = np.zeros(begins[-1], np.int64)
    data = np.arange(row_starts[last] - row_starts[first]) + np.repeat(np.cumsum(leads), counts)
    chosen[data] = messages.sent[row_starts[first] : row_starts[last]]
    torch.index_select(rows, 0, torch.from_numpy(chosen), out=out)
    memory = out.view(torch.uint8).numpy().reshape(-1)
    written = described[pair_starts[first] : pair_starts[last]].view(np.uint8).reshape(-1)
    begin = 0
    for size, at in zip((pairs * PAIR_BYTES).tolist(), (begins[:-1] * row_bytes).tolist(), strict=True):
        memory[at : at + size] = written[begin : begin + size]
        begin += size
