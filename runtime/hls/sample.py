"""A random sample of the rows that a layer is called with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Sample:
    """At most `most` rows, each of all that came as likely as any other; rows that are not finite are left out."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rng = np.random.default_rng(0)
        self._rank = np.zeros(0)
        self.x: NDArray[np.float64] = np.zeros((0, 0))
        self.tasks: NDArray[np.int64] | None = None

    def add(self, x: NDArray[np.float64], tasks: NDArray[np.int64] | None) -> None:
        """Rows [T, d] and their tasks [T]."""
        fine = np.isfinite(x).all(axis=1)
        rank = np.concatenate([self._rank, self._rng.random(int(fine.sum()))])
        kept = np.sort(np.argsort(rank)[: self._most])
        before = self.x.reshape(-1, x.shape[1])
        self._rank, self.x = rank[kept], np.concatenate([before, x[fine]])[kept]
        if tasks is not None:
            known = np.zeros(0, np.int64) if self.tasks is None else self.tasks
            self.tasks = np.concatenate([known, tasks[fine]])[kept]
