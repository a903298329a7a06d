"""How often a token visits a set of experts, when only each expert's share of all choices is known.

A token chooses K different experts.  Of all ways to do that which give every expert its share, the one that assumes
nothing else (maximal entropy) chooses a set S with probability proportional to the product of a weight of each expert
in S: conditional Poisson sampling (Chen, Dempster, Liu: Weighted finite population sampling, Biometrika 81, 1994).
Where all shares are equal that is drawing without replacement, and the numbers here are exact for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_ROUNDS = 200
_CLOSE = 1e-6
_CERTAIN = 1 - 1e-6


@dataclass(frozen=True)
class Choices:
    """Tokens that choose `slots` of E experts each.

    shares  [E] of all choices, none above 1 / slots; they add up to 1
    """

    shares: tuple[float, ...]
    slots: int

    @property
    def included(self) -> Array:
        """[E] the probability that a token chooses an expert."""
        found: Array = np.minimum(np.asarray(self.shares) * self._drawn, 1.0)
        return found

    @property
    def _drawn(self) -> int:
        return min(self.slots, len(self.shares))

    @cached_property
    def _weights(self) -> Array:
        """[E] weights that give every expert its share; infinite for one that every token chooses."""
        wanted = self.included
        certain = wanted > _CERTAIN
        drawn = self._drawn - int(certain.sum())
        weights: Array = np.where(certain, np.inf, 0.0)
        if drawn > 0:
            weights[~certain] = _fitted(wanted[~certain], drawn)
        return weights

    def visited(self, groups: NDArray[np.intp], count: int) -> Array:
        """[count] the probability that a token chooses at least one expert of each group.

        groups  [E] the group of each expert, or -1
        """
        weights, certain = self._weights, np.isinf(self._weights)
        always = np.bincount(groups[certain & (groups >= 0)], minlength=count) > 0
        drawn = self._drawn - int(certain.sum())
        if drawn <= 0:
            return always.astype(np.float64)
        groups = np.where(certain, count, groups)  # as if they were in a group of their own
        weights = np.where(certain, 0.0, weights)
        inside = np.zeros((count + 1, drawn + 1))
        inside[:, 0] = 1.0
        nowhere = inside[count].copy()
        order = np.argsort(groups, kind="stable")
        for members in _rounds(groups[order], order):
            inside[groups[members], 1:] += inside[groups[members], :-1] * weights[members, None]
        for expert in np.flatnonzero(groups < 0):
            nowhere[1:] += nowhere[:-1] * weights[expert]
        missed, total = _without(inside[:count], nowhere)
        return np.where(always, 1.0, np.clip(1.0 - missed / total, 0.0, 1.0))


def _rounds(sorted_groups: NDArray[np.intp], order: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Experts in rounds, each of which has one of every group at most."""
    begin = int(np.searchsorted(sorted_groups, 0))
    order, sorted_groups = order[begin:], sorted_groups[begin:]
    if not len(order):
        return []
    number = np.arange(len(order)) - np.searchsorted(sorted_groups, sorted_groups)
    return [order[number == turn] for turn in range(int(number.max()) + 1)]


def _without(inside: Array, nowhere: Array) -> tuple[Array, float]:
    """For each group, the coefficient of degree K of the product of all others' polynomials; and that of all."""
    count, size = inside.shape
    before = np.zeros((count + 1, size))
    before[0] = nowhere
    for group in range(count):
        before[group + 1] = _times(before[group], inside[group])
    behind = np.zeros(size)
    behind[0] = 1.0
    missed = np.zeros(count)
    for group in reversed(range(count)):
        missed[group] = before[group] @ behind[::-1]
        behind = _times(behind, inside[group])
    return missed, float(before[count][-1])


def _times(one: Array, other: Array) -> Array:
    return np.convolve(one, other)[: len(one)]


def _fitted(wanted: Array, drawn: int) -> Array:
    """[E] weights with which experts are in a set of `drawn` with the probabilities `wanted`, all below 1."""
    weights: Array = wanted / (1.0 - wanted)
    for _ in range(_ROUNDS):
        found = _included(weights, drawn)
        if np.abs(found - wanted).max() < _CLOSE:
            break
        odds = wanted * (1.0 - found), found * (1.0 - wanted)
        weights = weights * np.divide(*odds, out=np.ones_like(wanted), where=odds[1] > 0)
    return weights


def _included(weights: Array, drawn: int) -> Array:
    """[E] the probability that an expert is in a set of `drawn` whose probability is the product of its weights."""
    count = len(weights)
    before, behind = np.zeros((count + 1, drawn + 1)), np.zeros((count + 1, drawn + 1))
    before[0, 0] = behind[count, 0] = 1.0
    for number, weight in enumerate(weights):
        before[number + 1] = before[number]
        before[number + 1, 1:] += before[number, :-1] * weight
    for number in reversed(range(count)):
        behind[number] = behind[number + 1]
        behind[number, 1:] += behind[number + 1, :-1] * weights[number]
    others = np.einsum("ek,ek->e", before[:-1, :drawn], behind[1:, :drawn][:, ::-1])
    found: Array = weights * others / before[count, drawn]
    return found
