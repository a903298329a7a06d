"""How far a result may be from the float64 oracle's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

Array = np.ndarray
Tensors = dict[str, Array]

NOISE = 3e-6
"""Relative: more than what f32 arithmetic makes of a token's logits."""
_TRIES = 3
_UNSURE = 0.02
ELEMENT = {"f32": 2e-5, "bf16": 3e-2, "f16": 5e-3}
WHOLE = {"f32": 5e-6, "bf16": 7e-3, "f16": 1e-3}
INT8_ROWS = 6e-2, 2.5e-2
"""Of single elements, by the size of their row; of the whole result, by its norm.  An f32 sum may round an element of a
hidden row to another number than an exact sum does, and experts may have one hidden element only."""


def exact(tensor: torch.Tensor) -> Array:
    """The same numbers as a NumPy array."""
    return tensor.detach().to(torch.float64).numpy() if tensor.is_floating_point() else tensor.numpy()


@dataclass(frozen=True)
class Wanted:
    """What the oracle gives, how much of it comes and goes with noise, and the rows that hang in the balance."""

    y: Array
    spread: Array
    sure: Array


def wanted(reference: Callable[[Tensors], Array], tensors: Tensors, seed: int) -> Wanted:
    """The oracle's y [T, d] for these tensors, and for some that differ by less than f32 arithmetic does.

    A token that chooses other experts then is not sure: the choice is a tie but for rounding.  Ties between numbers
    that are equal stay ties.
    """
    y = reference(tensors)
    rng = np.random.default_rng(seed)
    spread = np.zeros_like(y)
    moved = [name for name in tensors if name.startswith("router.") or "." not in name]
    for _ in range(_TRIES):
        noisy = dict(tensors)
        for name in moved:
            if tensors[name].dtype.kind == "f":
                noisy[name] = tensors[name] * (1 + NOISE * rng.standard_normal(tensors[name].shape))
        with np.errstate(invalid="ignore"):
            spread = np.maximum(spread, np.nan_to_num(np.abs(reference(noisy) - y), nan=0.0))
    size = _sizes(y)
    sure = (spread <= _UNSURE * size[:, None]).all(1)
    return Wanted(y, spread, sure)


def _sizes(y: Array) -> Array:
    """The magnitude that errors of a row are measured by: its own, and no less than a part of the result's."""
    finite = np.where(np.isfinite(y), y, 0.0)
    rows = np.sqrt((finite**2).mean(1)) if y.size else np.zeros(len(y))
    whole = np.sqrt((finite**2).mean()) if y.size else 0.0
    sizes: Array = np.maximum(rows, 0.3 * whole)
    return sizes


def require_close(got: torch.Tensor, want: Wanted, element: float, whole: float, what: str) -> None:
    """Raises AssertionError where a row that is sure differs by more."""
    found = exact(got)[want.sure]
    y, spread = want.y[want.sure], want.spread[want.sure]
    assert (np.isnan(found) == np.isnan(y)).all(), f"{what}: NaN where the oracle has none, or the other way round"
    finite = np.isfinite(y)
    assert (found[~finite] == y[~finite])[~np.isnan(y[~finite])].all(), f"{what}: infinities differ"
    difference = np.where(finite, found - np.where(finite, y, 0.0), 0.0)
    allowed = (
        element * (np.abs(np.where(finite, y, 0.0)) + _sizes(y)[:, None]) + 8 * spread + 1e-6 * (element > 1e-4) + 1e-37
    )
    worst = np.abs(difference) / allowed
    if worst.size and worst.max() > 1:
        row, column = np.unravel_index(worst.argmax(), worst.shape)
        raise AssertionError(
            f"{what}: {int((worst > 1).sum())} of {worst.size} elements in {int((worst > 1).any(1).sum())} of "
            f"{len(worst)} rows; the worst is {found[row, column]:.6g} at {row}, {column}, where the oracle has "
            f"{y[row, column]:.6g} and errors of {allowed[row, column]:.2g} are allowed"
        )
    size = np.linalg.norm(np.where(finite, y, 0.0))
    error = np.linalg.norm(difference)
    limit = whole * size + 8 * np.linalg.norm(spread) + 1e-30
    if y.shape[1] >= 8:
        assert error <= limit * (1 if len(y) > 4 else 3), f"{what}: relative error {error / max(size, 1e-30):.3g}"
