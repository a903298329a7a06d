"""Choosing, dropping and sorting slots: the index side of a layer, written for clarity rather than speed."""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Numbers = NDArray[np.generic]


def top_k(values: Floats, k: int) -> Ints:
    """Positions of the k largest along the last axis, largest first; ties to the lower position, NaN first."""
    order = np.lexsort((-np.nan_to_num(values, nan=np.inf), ~np.isnan(values)), axis=-1)
    chosen: Ints = order[..., :k]
    return chosen


def top_p(values: Floats, mass: float, most: int) -> Ints:
    """Positions of the smallest set whose mass reaches `mass`, largest first, padded with -1 to `most`."""
    order = top_k(values, most)
    taken = np.take_along_axis(values, order, -1)
    before = np.cumsum(taken, -1) - taken
    return np.where((np.arange(most) == 0) | (before < mass), order, -1)


def take(values: Numbers, index: Ints) -> Numbers:
    """values[..., index] along the last axis, 0 where the slot is empty."""
    lead = np.broadcast_shapes(values.shape[:-1], index.shape[:-1])
    values = np.broadcast_to(values, (*lead, values.shape[-1]))
    index = np.broadcast_to(index, (*lead, index.shape[-1]))
    picked = np.take_along_axis(values, np.maximum(index, 0), -1)
    return np.where(index >= 0, picked, np.zeros((), values.dtype))


def chosen(index: Ints, count: int) -> NDArray[np.bool_]:
    """Mask over `count` positions of those that the last axis of `index` holds."""
    mask: NDArray[np.bool_] = (index[..., None] == np.arange(count)).any(-2)
    return mask


def capacity(index: Ints, weight: Floats, experts: int, factor: float, minimum: int, order: str) -> Ints:
    """`index` with the slots emptied that overflow their expert; see `moe.capacity`."""
    tokens, slots = index.shape
    limit = max(minimum, math.ceil(factor * tokens * slots / experts))
    token, slot = np.divmod(np.arange(tokens * slots), max(slots, 1))
    queue = {
        "token": np.lexsort((slot, token)),
        "choice": np.lexsort((token, slot)),
        "score": np.lexsort((slot, token, -np.nan_to_num(weight.ravel(), nan=np.inf))),
    }[order]
    kept, used = index.copy(), np.zeros(experts, np.int64)
    for flat in queue:
        expert = index.flat[flat]
        if expert >= 0:
            if used[expert] >= limit:
                kept.flat[flat] = -1
            used[expert] += 1
    return kept


def plan(index: Ints, experts: int) -> tuple[Ints, Ints]:
    """(offsets, slots): the occupied flat slots sorted by (expert, token, slot), and where each expert's begin."""
    flat = index.ravel()
    occupied = np.flatnonzero(flat >= 0)
    slots = occupied[np.argsort(flat[occupied], kind="stable")]
    counts = np.bincount(flat[occupied], minlength=experts)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), slots
