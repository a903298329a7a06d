"""What ranks sign with, and what a missing or late sign means."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from moec.errors import RankError


@dataclass(frozen=True, slots=True)
class Sign:
    """What a rank last wrote: how often it has signed, seconds between two signs, calls begun, what it does."""

    count: int
    interval: float
    call: int
    at: str
    left: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Sign:
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Blame:
    """Why all ranks stop, as the first that knew wrote it."""

    ranks: tuple[int, ...]
    message: str

    def error(self) -> RankError:
        return RankError(self.message, self.ranks)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Blame:
        found = json.loads(text)
        return cls(tuple(found["ranks"]), found["message"])


@dataclass(frozen=True, slots=True)
class Trouble:
    """A wait of a rank that failed: what it waited for, with which ranks, how it failed, in which call."""

    what: str
    peers: tuple[int, ...]
    reason: str
    call: int


def diagnose(
    rank: int, ranks: Sequence[int], before: Mapping[int, Sign], after: Mapping[int, Sign], trouble: Trouble
) -> Blame:
    """Who is to blame for the `trouble` of `rank`: ranks without a new sign, else those behind, else all it waited for.

    Between the signs `before` and `after` lie several of the longest interval in which a rank signs.
    """
    told = f"rank {rank} waited for {trouble.what}: {trouble.reason}"
    others = [other for other in ranks if other != rank]
    left = [other for other in others if other in after and after[other].left]
    silent = [
        other
        for other in others
        if other not in left and (other not in after or (other in before and before[other].count == after[other].count))
    ]
    if silent:
        return Blame(tuple(silent), f"{_named(silent)}: no sign of life (killed, stopped, or cut off); {told}")
    if left:
        return Blame(tuple(left), f"{_named(left)}: left while others go on; {told}")
    behind = [other for other in trouble.peers if other != rank and after[other].call < trouble.call]
    if behind:
        calls = ", ".join(f"at call {after[other].call}, {after[other].at}" for other in behind)
        return Blame(tuple(behind), f"{_named(behind)}: alive, but did not make call {trouble.call} ({calls}); {told}")
    peers = [other for other in trouble.peers if other != rank]
    doing = "; ".join(f"rank {other}: {after[other].at}" for other in peers)
    return Blame(tuple(peers), f"{_named(peers)}: alive, but the exchange does not end ({doing}); {told}")


def _named(ranks: Sequence[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else "ranks " + ", ".join(map(str, ranks))
