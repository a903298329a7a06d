"""What the leading rank tells the others to do: data as JSON, to all at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from moec.runtime.parallel.moving.circle import Circle

Command = Mapping[str, Any]


class Commands:
    """Every rank of the group calls `tell` (the leader, its first rank) or `hear` (the others) as often."""

    def __init__(self, circle: Circle) -> None:
        self._circle = circle
        self._leader = dist.get_global_rank(circle.group, 0)

    @property
    def leads(self) -> bool:
        return dist.get_rank() == self._leader

    def leave(self) -> None:
        """Others that wait for this rank, now or later, get a RuntimeError at once."""
        self._circle.leave()

    def tell(self, command: Command) -> None:
        """Raises RuntimeError where a rank is gone."""
        text = torch.frombuffer(bytearray(json.dumps(command).encode()), dtype=torch.uint8)
        dist.broadcast(torch.tensor([len(text)]), self._leader, self._circle.group)
        dist.broadcast(text, self._leader, self._circle.group)

    def hear(self) -> Command:
        """Waits as long as the group's limit.  Raises RuntimeError where the leader is gone."""
        length = torch.zeros(1, dtype=torch.int64)
        dist.broadcast(length, self._leader, self._circle.group)
        text = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(text, self._leader, self._circle.group)
        found: Command = json.loads(bytes(text.tolist()))
        return found
