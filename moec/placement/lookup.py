"""From experts to where their tokens go: which copy of an expert a token takes.

The choice is a fixed function of where the token stands, so that every run and every way of cutting a batch into
chunks takes the same copies.  Tokens take the copy at their own position first, then those near it, as far as the
copies' shares allow; what is left over is spread evenly along the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]

# Turns follow a Weyl sequence with the golden ratio: of all sequences it leaves the smallest gaps (Knuth, 6.4)
_STEP = np.uint32(0x9E3779B1)
_EXPERT = np.uint32(0x85EBCA6B)


@dataclass(frozen=True)
class Lookup:
    """Where the tokens of one position go; all arrays are int32.

    holder  `[experts, copies]`: the position of each copy, -1 behind the last
    slot    `[experts, copies]`: its slot there, -1 behind the last
    below   `[experts, copies - 1]`: a token takes the first copy below whose number its turn is, or else the last one
    """

    TURNS: ClassVar[int] = 1 << 30

    position: int
    holder: Ints
    slot: Ints
    below: Ints

    def __call__(self, index: Ints, first: int = 0) -> tuple[Ints, Ints]:
        """The destination position and the slot of every (token, expert) pair.

        index  the experts of tokens, int32 `[T, K]`, -1 for none
        first  the number of the first of them among the tokens of this position
        Both results are int32 `[T, K]`, -1 where the index is.
        """
        some = index >= 0
        expert = np.where(some, index, 0)
        if not self.below.shape[1]:
            copy = np.zeros_like(expert)
        else:
            token = np.arange(first, first + len(index), dtype=np.uint32)[:, None]
            start = expert.astype(np.uint32) * _EXPERT + np.uint32(self.position)
            turn = ((token + start) * _STEP) >> np.uint32(2)
            copy = (turn[:, :, None] >= self.below[expert].view(np.uint32)).sum(2, dtype=np.int32)
        none = np.int32(-1)
        return np.where(some, self.holder[expert, copy], none), np.where(some, self.slot[expert, copy], none)


def flows(holders: Sequence[int], split: Sequence[float], grid: Sequence[int]) -> NDArray[np.float64]:
    """Which share of the tokens of each position each copy of an expert takes, `[positions, copies]`.

    Every row adds up to 1; where all positions have as many tokens as each other, every copy takes its share in
    `split`.  Positions meet copies level by level: at their own position, then along the innermost axis, then further.
    """
    positions = math.prod(grid)
    at = np.asarray(holders)
    found = np.zeros((positions, len(at)))
    wants = np.ones(positions)  # of each position's tokens, in units of one position's
    takes = np.asarray(split, np.float64) * (positions / math.fsum(split))
    near = 1
    for size in (*reversed(grid), 1):
        for group in range(0, positions, near):
            inside = (at >= group) & (at < group + near)
            demand, room = wants[group : group + near], takes[inside]
            flow = min(demand.sum(), room.sum())
            if flow > 0:
                found[group : group + near, inside] += np.outer(demand, room) * (flow / (demand.sum() * room.sum()))
                takes[inside] = room * (1 - flow / room.sum())
                wants[group : group + near] = demand * (1 - flow / demand.sum())
        near *= size
    # rounding may leave a trace of a token without a copy
    return np.asarray(found / found.sum(1, keepdims=True))
