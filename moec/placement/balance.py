"""How the copies of experts share their tokens: so that the busiest rank has as little as possible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moec.placement.problem import Loads, Placement

_ROUNDS = 200
_SETTLED = 1e-9


def balanced(holders: Sequence[Sequence[int]], load: Sequence[float], ranks: int) -> Placement:
    """The split of least sum of squared loads, which is also one of the least maximum.

    One expert after the other pours its tokens where there is least, until nothing changes: a descent along blocks of
    a convex function, which ends at its minimum.
    """
    place = [tuple(sorted(found)) for found in holders]
    split = list(Placement.even(place).split)
    loads = Placement(tuple(place), tuple(split)).loads(load, ranks)
    shared = [expert for expert, found in enumerate(place) if len(found) > 1 and load[expert] > 0]
    scale = float(loads.max(initial=0.0))
    for _ in range(_ROUNDS if shared else 0):
        changed = 0.0
        for expert in shared:
            at = np.asarray(place[expert])
            now = np.asarray(split[expert]) * load[expert]
            rest = loads[at] - now
            wanted = poured(rest, load[expert])
            changed = max(changed, float(np.abs(wanted - now).max()))
            loads[at] = rest + wanted
            split[expert] = tuple((wanted / wanted.sum()).tolist())
        if changed <= _SETTLED * scale:
            break
    return Placement(tuple(place), tuple(split))


def poured(levels: Loads, amount: float) -> Loads:
    """How much of `amount` each of `levels` gets so that the lowest ones rise together."""
    order = np.sort(levels)
    filled = amount + np.cumsum(order)
    surface = filled / np.arange(1, len(order) + 1)  # where the surface would be with so many of the lowest
    under = int(np.nonzero(surface > order)[0][-1])
    needed: Loads = np.maximum(surface[under] - levels, 0.0)
    return needed
