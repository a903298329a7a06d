"""A few rows of what a layer is called with, to try a new variant on; in memory only, and only until it is tried."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

_MOST_BYTES = 2**20
_MOST_ROWS = 1024


class Recording:
    """Copies the first rows of calls until it has enough; `Build.probe` of every build while it runs."""

    def __init__(self, most_rows: int = _MOST_ROWS, most_bytes: int = _MOST_BYTES) -> None:
        self._most_rows, self._left = most_rows, most_bytes
        self._rows: list[list[NDArray[np.uint8]]] = []
        self._shapes: list[tuple[tuple[int, ...], torch.dtype]] = []
        self.count = 0

    @property
    def full(self) -> bool:
        return self.count >= self._most_rows or self._left <= 0

    def seen(self, inputs: Sequence[torch.Tensor], nanoseconds: int) -> None:
        if self.full or not inputs[0].shape[0]:
            return
        whole = [_bytes(tensor) for tensor in inputs]
        each = sum(one.shape[1] for one in whole)
        rows = max(1, min(len(whole[0]), self._most_rows - self.count, self._left // each))
        self._shapes = [(tuple(tensor.shape[1:]), tensor.dtype) for tensor in inputs]
        self._rows.append([one[:rows].copy() for one in whole])
        self._left -= rows * each
        self.count += rows

    def batch(self, tokens: int, *, uneven: bool = False) -> list[torch.Tensor]:
        """Inputs of `tokens` rows: those that were recorded, over and over.  Not before there is a row.

        uneven: row number n n times in a row, from 1 on, the last one as often as there is room.  So experts get
        anything from one row to many, and few of them get any.
        """
        columns = list(zip(*tuple(self._rows), strict=True))  # a call may still be adding some
        order = _uneven(tokens) if uneven else np.arange(tokens)
        return [
            _tensor(np.concatenate(column), order, shape, dtype)
            for column, (shape, dtype) in zip(columns, self._shapes, strict=True)
        ]


def _uneven(tokens: int) -> NDArray[np.int64]:
    """0, 1, 1, 2, 2, 2, ...; no number less often than the one before."""
    most = int(((8 * tokens + 1) ** 0.5 - 1) / 2)
    order = np.repeat(np.arange(most), np.arange(1, most + 1))
    return np.concatenate((order, np.full(tokens - len(order), max(most - 1, 0))))


def _bytes(tensor: torch.Tensor) -> NDArray[np.uint8]:
    """Its rows as bytes, sharing its memory.  NumPy knows no bf16, and torch would use all of its threads to copy."""
    flat = tensor.detach().reshape(tensor.shape[0], -1)
    seen: NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return seen


def _tensor(
    rows: NDArray[np.uint8], order: NDArray[np.int64], shape: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    made = torch.empty((len(order), *shape), dtype=dtype)
    if len(order):
        _bytes(made)[:] = rows[order % len(rows)]
    return made
