"""Which calls are counted: all that take long, and of short ones every n-th on average, so that counting costs little.

A call that is not counted takes one step of an iterator, which is one step of the interpreter too: callers may race,
and none is missed.  How many steps an iterator has is drawn from a geometric distribution: each call of so many tokens
is counted with the probability 1 / n, whatever was counted before, so that traffic with a rhythm is no problem, and
what a counted call found stands for n calls without bias (Horvitz and Thompson, "A generalization of sampling without
replacement from a finite universe", 1952).
"""

from __future__ import annotations

import math
import threading
from itertools import repeat
from operator import length_hint

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

BIT_LENGTHS = 65
_EXACT = 0.01
"""Where counting every call takes no more than this share of them, every one is counted."""
_SHARE = 0.005
"""Of a call: what counting takes elsewhere, on average.  Not to count a call takes some 30 ns besides."""
_LONGEST = 512
_FIRST = 128
"""Calls of each bit length of tokens that are counted before any is left out."""
_MOST = 1024
"""Numbers of tokens that have iterators of their own at a time."""
_AHEAD = 512
_FIRST_COSTS = (2e-6, 2e-5)
"""Seconds for a call: where every call is counted, and where few are, and code for it must be fetched from memory."""
_HALF_LIFE = 32
"""Calls that are counted, after which what was learned from one counts half."""
_FAR = 4.0
"""Times what was learned: of what takes longer, such as a thread that the system stopped, only so much is believed."""


class Sampling:
    """Decides for each call whether it is counted.

    gates  by the number of tokens: `next` of one lets a call go uncounted.  KeyError, StopIteration: `draw` decides
    """

    def __init__(self, seed: int | None = None) -> None:
        self.gates: dict[int, repeat[None]] = {}
        self._random = np.random.default_rng(seed)
        self._waits: list[float] = []
        self._lock = threading.Lock()
        self._live: dict[int, tuple[int, int]] = {}  # of each gate: how many calls it lets go, and the period
        self._periods = [1] * BIT_LENGTHS
        self._scales = [
            0.0
        ] * BIT_LENGTHS  # means of exponential distributions whose floors are how many calls to let go
        self._all = 0
        self._seen = np.zeros(BIT_LENGTHS, np.int64)
        self._seconds = np.zeros(BIT_LENGTHS)  # of a call; 0: not known
        self._cost_of_each, self._cost_of_some = _FIRST_COSTS
        self._tokens = 0
        self._histogram = np.zeros(BIT_LENGTHS, np.int64)

    def forked(self) -> None:
        """In a forked child: a lock that another thread may have held is free."""
        self._lock = threading.Lock()

    def draw(self, tokens: int) -> int:
        """For how many calls a call of so many tokens stands; 0: it is not counted."""
        with self._lock:
            gate = self.gates.get(tokens)
            if gate is None:
                gate = self._open(tokens)
            if next(gate, gate) is None:
                return 0
            size, period = self._live[tokens]
            if size or period > 1 or self._scales[tokens.bit_length()]:
                self._tokens += tokens * size
                self._histogram[tokens.bit_length()] += size
                self._open(tokens)
            return period

    def count_all(self, wanted: bool) -> None:
        """Count every call, whatever it costs, until this was called with False as often as with True."""
        with self._lock:
            self._all += 1 if wanted else -1
            self._weigh()
            self._settle()

    def start_over(self) -> None:
        """Count every call at first, as in the beginning: few calls are then known exactly."""
        with self._lock:
            self._seen[:] = 0
            self._weigh()
            self._settle()

    def learn(self, tokens: Counts, seconds: NDArray[np.float64], weights: Counts, costs: NDArray[np.float64]) -> None:
        """Of calls that were counted: their tokens, how long they took (0: not known), for how many each stands, and
        what counting took."""
        lengths = bit_lengths(tokens)
        known = self._seconds[lengths]
        taken = np.where(known > 0, np.minimum(seconds, _FAR * known), seconds)
        number = np.bincount(lengths, minlength=BIT_LENGTHS)
        mean = np.bincount(lengths, taken, BIT_LENGTHS) / np.maximum(number, 1)
        with self._lock:
            self._seen += number
            rate = np.where(self._seconds > 0, 1 - 0.5 ** (number / _HALF_LIFE), 1.0) * (mean > 0)
            self._seconds += rate * (mean - self._seconds)
            self._cost_of_each = _learned(self._cost_of_each, costs[weights == 1])
            self._cost_of_some = _learned(self._cost_of_some, costs[weights > 1])
            self._weigh()
            if len(self._waits) < _AHEAD // 2:
                self._refill()

    def _weigh(self) -> None:
        """Find out one in how many calls is to be counted."""
        seconds = np.where(self._seconds > 0, self._seconds, np.inf)
        periods = np.clip(np.ceil(self._cost_of_some / (_SHARE * seconds)), 2, _LONGEST)
        exact = (self._cost_of_each <= _EXACT * seconds) | (self._seen < _FIRST) | bool(self._all)
        periods = np.where(exact, 1, periods)
        self._scales = (-1 / np.log1p(-1 / np.maximum(periods, 2)) * (periods > 1)).tolist()
        self._periods = periods.astype(int).tolist()

    def uncounted(self) -> tuple[int, Counts]:
        """The tokens of all calls that were let go, and how many there were by the bit length of their tokens."""
        with self._lock:
            tokens, histogram = self._tokens, self._histogram.copy()
            for size, gone in self._gone():
                tokens += size * gone
                histogram[size.bit_length()] += gone
            return tokens, histogram

    def _open(self, tokens: int) -> repeat[None]:
        if len(self._live) >= _MOST and tokens not in self._live:
            self._settle()
        length = tokens.bit_length()
        if not self._waits:
            self._refill()
        size = int(self._waits.pop() * self._scales[length])
        self._live[tokens] = size, self._periods[length]
        gate = self.gates[tokens] = repeat(None, size)
        return gate

    def _refill(self) -> None:
        """Draw waiting times ahead: where few calls are counted, each has to fetch the code for it from memory."""
        self._waits = self._random.standard_exponential(_AHEAD).tolist()

    def _gone(self) -> list[tuple[int, int]]:
        """Of each number of tokens with a gate: how many calls that has let go."""
        return [(tokens, size - length_hint(self.gates[tokens])) for tokens, (size, _) in self._live.items()]

    def _settle(self) -> None:
        """Begin anew.  That is no bias: what is left of a gate is distributed as a new one is."""
        for tokens, gone in self._gone():
            self._tokens += tokens * gone
            self._histogram[tokens.bit_length()] += gone
        self.gates.clear()
        self._live.clear()


def _learned(known: float, costs: NDArray[np.float64]) -> float:
    """A mean that forgets."""
    if not len(costs):
        return known
    mean = float(np.minimum(costs, _FAR * known).mean())
    return known + (1 - math.pow(0.5, len(costs) / _HALF_LIFE)) * (mean - known)


def bit_lengths(tokens: Counts) -> Counts:
    """Of numbers from 0 on."""
    lengths: Counts = np.frexp(tokens.astype(np.float64))[1].astype(np.int64)
    return lengths
