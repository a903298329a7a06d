"""Where calls leave what they counted: rows of memory, taken before a call and given back behind it.

Taking and giving are single operations on a deque, so they need no lock and take a fraction of a microsecond; nothing
is computed in a call.  Whoever wants to know `drain`s the rows that were given back.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """What `n` calls did that were counted, in the order in which they ended.

    tokens    of each call, [n]
    chosen    how often it chose each expert, before a capacity dropped any, [n, E]
    kept      how many of these were computed, [n, E]; None where the layer has no capacity
    seconds   how long each took, [n]
    variants  the number of the variant that ran it, [n]
    weights   for how many calls it stands, [n]
    costs     seconds that getting its row took, [n]
    """

    tokens: Counts
    chosen: Counts
    kept: Counts | None
    seconds: NDArray[np.float64]
    variants: Counts
    weights: Counts
    costs: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(slots=True)
class Row:
    """Memory for one call, and what is known of it before it runs.

    tensors  i32 [E], one for each statistic of the manifest
    weight   for how many calls it stands
    cost     nanoseconds that getting this row took
    """

    number: int
    tensors: tuple[torch.Tensor, ...]
    weight: int = 1
    cost: int = 0


class Ring:
    """`rows` rows for calls of a layer with `experts` routed experts; `capacity`: whether it can drop slots."""

    def __init__(self, experts: int, capacity: bool, rows: int = 256) -> None:
        self._counts = np.zeros((rows, 1 + capacity, experts), np.int32)
        memory = torch.from_numpy(self._counts)
        self._free = deque(Row(number, tuple(memory[number].unbind())) for number in range(rows))
        self._ended: deque[tuple[Row, int, int, int]] = deque()
        self._draining = threading.Lock()

    def take(self) -> Row | None:
        """A row for one call; None if all are in use, and the call goes uncounted."""
        try:
            return self._free.popleft()
        except IndexError:
            return None

    def give(self, row: Row, tokens: int, nanoseconds: int, variant: int) -> bool:
        """The call has ended.  True when it is time for `drain`, so that rows do not run out."""
        self._ended.append((row, tokens, nanoseconds, variant))
        return len(self._free) < len(self._ended)

    def cancel(self, row: Row) -> None:
        """The call has failed: what it counted is worth nothing."""
        self._free.append(row)

    def forked(self) -> None:
        """In a forked child: a lock that another thread may have held is free."""
        self._draining = threading.Lock()

    def drain(self) -> Batch:
        """What was given back since the last time; any thread may ask."""
        with self._draining:
            ended = [self._ended.popleft() for _ in range(len(self._ended))]
            counts = self._counts[[row.number for row, *_ in ended]].astype(np.int64)
            facts = np.array([(*fact, row.weight, row.cost) for row, *fact in ended], np.int64).reshape(-1, 5)
            self._free.extend(row for row, *_ in ended)
        tokens, nanoseconds, variants, weights, costs = facts.T
        kept = counts[:, 1] if counts.shape[1] > 1 else None
        return Batch(tokens, counts[:, 0], kept, _seconds(nanoseconds), variants, weights, _seconds(costs))


def _seconds(nanoseconds: Counts) -> NDArray[np.float64]:
    return nanoseconds.astype(np.float64) * 1e-9
