"""When each step of a call ran on a rank, as measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from moec.runtime.parallel.streams import Run
from moec.schedule.steps import Step


@dataclass(frozen=True)
class Span:
    """One step: microseconds from the beginning of the call's first step.

    It begins when all that it waits for has ended; one that exchanges something ends when all ranks have taken part.
    """

    name: str
    kind: str
    stream: str
    chunk: int | None
    begin: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """The steps of one call, in the order of the schedule."""

    rank: int
    steps: tuple[Span, ...]

    @classmethod
    def of(cls, rank: int, steps: Sequence[Step], run: Run) -> Timeline:
        first = min(run.begin, default=0)
        spans = (
            Span(s.name, s.kind, s.stream, s.chunk, (begin - first) / 1e3, (end - first) / 1e3)
            for s, begin, end in zip(steps, run.begin, run.end, strict=True)
        )
        return cls(rank, tuple(spans))

    @property
    def microseconds(self) -> float:
        """From the beginning of the first step to the end of the last."""
        return max((span.end for span in self.steps), default=0.0)

    def to_json(self) -> str:
        """`{"rank": n, "steps": [{"name", "kind", "stream", "chunk", "begin", "end"}, ...]}`, times in microseconds."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Timeline:
        """What `to_json` wrote.  Raises ValueError, KeyError or TypeError for what it did not."""
        data = json.loads(text)
        return cls(data["rank"], tuple(Span(**step) for step in data["steps"]))
