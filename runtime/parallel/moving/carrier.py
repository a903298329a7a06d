"""Bytes from one rank to another in the background, in pieces of bounded size."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
import torch.distributed as dist

from moec.errors import PlacementError
from moec.runtime.parallel.moving.circle import Circle
from moec.runtime.parallel.moving.memory import Pieces
from moec.runtime.parallel.moving.throttle import Throttle

_DATA, _WAIT, _STOP = 1, 0, -1
_BEAT = 1.0
"""Seconds after which a sender that rests says that it is still there."""


class Stopped(PlacementError):
    """The sender could not give what it was to send."""


class Carrier:
    """Sends and receives, one thing at a time.

    Before every piece comes a word that says what follows: data, a while of nothing, or the end.  So a sender may rest
    for longer than the group's limit, and give up without leaving its receiver behind.

    largest  bytes of a piece
    sent, received  bytes so far
    """

    def __init__(self, circle: Circle, largest: int, throttle: Throttle) -> None:
        self._circle, self._largest, self._throttle = circle, largest, throttle
        self.sent = self.received = 0

    def send(self, pieces: Pieces, to: int) -> None:
        """Send bytes to rank `to` of the default group.  Raises RuntimeError where it is gone."""
        for part in self._cut(pieces):
            while not self._throttle.wait(_BEAT):
                self._say(_WAIT, to)
            begin = time.perf_counter()
            self._say(_DATA, to)
            dist.send(part, to, self._circle.group)
            self.sent += part.numel()
            self._rest(self._throttle.rest(part.numel(), time.perf_counter() - begin), to)

    def stop(self, to: int) -> None:
        """Say that nothing of what is expected comes."""
        self._say(_STOP, to)

    def receive(self, into: Pieces, source: int) -> None:
        """Receive what `send` sends.  Raises Stopped where nothing comes, RuntimeError where `source` is gone."""
        for part in self._cut(into):
            while (word := self._hear(source)) == _WAIT:
                pass
            if word == _STOP:
                raise Stopped(f"rank {source} could not send what was asked of it")
            dist.recv(part, source, self._circle.group)
            self.received += part.numel()

    def _cut(self, pieces: Pieces) -> Iterator[torch.Tensor]:
        for piece in pieces:
            for begin in range(0, piece.numel(), self._largest):
                yield piece[begin : begin + self._largest]

    def _rest(self, seconds: float, to: int) -> None:
        while seconds > 0:
            time.sleep(min(seconds, _BEAT))
            seconds -= _BEAT
            if seconds > 0:
                self._say(_WAIT, to)

    def _say(self, word: int, to: int) -> None:
        dist.send(torch.tensor([word]), to, self._circle.group)

    def _hear(self, source: int) -> int:
        word = torch.zeros(1, dtype=torch.int64)
        dist.recv(word, source, self._circle.group)
        return int(word)
