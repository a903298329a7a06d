"""The ranks that move experts, and the process group over which they do: one that gives up leaves it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist

_PATIENCE = timedelta(hours=6)
"""Ranks that have nothing to send wait for those that send slowly; one that is gone is noticed at once."""


class Circle:
    """A process group of these ranks, used by nothing else.  Every rank of the default group makes it."""

    def __init__(self, ranks: Sequence[int]) -> None:
        self._group: dist.ProcessGroup | None = dist.new_group(ranks, timeout=_PATIENCE, backend="gloo")

    @property
    def group(self) -> dist.ProcessGroup:
        """To be asked for anew each time, since who keeps it keeps it open.  Raises RuntimeError once left."""
        if self._group is None:
            raise RuntimeError("this rank has left those that move experts")
        return self._group

    def leave(self) -> None:
        """Close the connections of this rank: others that wait for it, now or later, get a RuntimeError at once.

        The connections of Gloo are closed with the group's last owner, and the others would wait for hours.
        """
        group, self._group = self._group, None
        if group is not None:
            with suppress(ValueError):  # it was destroyed with the default group
                dist.destroy_process_group(group)
