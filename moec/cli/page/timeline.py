"""A journal, read once and summed up: what the page shows, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from moec.cli.page.bins import SPAN, Bins
from moec.cli.wording import joined
from moec.journal import (
    Compiled,
    Decision,
    Evicted,
    Failed,
    Record,
    Rollback,
    Sample,
    Start,
    Stop,
    Swap,
    Validated,
)

_MOST_EVENTS = 2000
_MOST_VARIANTS = 64


@dataclass
class Variant:
    """What became of a variant; of one that was tried several times, the last time."""

    name: str
    compiled: Compiled | None = None
    validated: Validated | None = None
    outcome: Record | None = None


class Timeline:
    """What a journal says.  Feed it with `add`, oldest records first.

    start     how it began; where the layer changed, the last time
    stopped   whether it ended in order
    events    all but samples, the last ones, oldest first
    dropped   how many events there were before them
    earlier   adaptations of another layer before, of which nothing is shown
    variants  by name, in the order in which they were heard of
    """

    def __init__(self, earlier: int = 0) -> None:
        self.start: Start | None = None
        self.stopped = False
        self.events: deque[Record] = deque()
        self.dropped, self.earlier = 0, earlier
        self.variants: dict[str, Variant] = {}
        self.calls = 0
        self.tokens = 0.0
        self.last: Sample | None = None
        self.latest = 0.0
        self._bins: Bins | None = None

    @classmethod
    def of(cls, records: Iterable[Record]) -> Timeline:
        timeline = cls()
        for record in records:
            if isinstance(record, Start) and timeline._is_other(record):
                timeline = cls(timeline.earlier + 1)
            timeline.add(record)
        return timeline

    @property
    def bins(self) -> Bins:
        """The samples; no spans where there are none."""
        return self._bins or Bins(self.start.time if self.start else 0.0)

    @property
    def end(self) -> float:
        """Of the time axis; it goes on to the last event where there are no samples."""
        return max(self.bins.end if self.bins.bins else self.latest, self.bins.begin + SPAN)

    @property
    def moves(self) -> bool:
        """Whether this is about experts that move between ranks; such a journal has no samples."""
        return self.start is not None and bool(self.start.ranks)

    def add(self, record: Record) -> None:
        self.latest = max(self.latest, record.time)
        if isinstance(record, Sample):
            self._sample(record)
            return
        if isinstance(record, Start):
            if record == self.start:
                return  # the journal was set aside and begun again
            self.start, self.stopped = record, False
        elif isinstance(record, Stop):
            self.stopped = True
        self.events.extend(joined([*([self.events.pop()] if self.events else []), record]))
        if len(self.events) > _MOST_EVENTS:
            self.events.popleft()
            self.dropped += 1
        self._follow(record)

    def _is_other(self, start: Start) -> bool:
        return self.start is not None and (start.layer, start.experts) != (self.start.layer, self.start.experts)

    def _sample(self, sample: Sample) -> None:
        if self._bins is None:
            self._bins = Bins(min(self.start.time, sample.time) if self.start else sample.time)
        calls = sum(sample.histogram.values())
        self.calls += calls
        self.tokens += calls * sample.tokens_per_call
        self.last = sample
        self._bins.add(sample)

    def _follow(self, record: Record) -> None:
        """Note what an event says of a variant."""
        match record:
            case Compiled(candidate=name) | Validated(candidate=name) | Swap(to=name):
                pass
            case Rollback(before=name) | Evicted(variant=name):
                pass
            case Failed(candidate=str(name)) | Decision(what="compile" | "keep", candidate=str(name)):
                pass
            case _:
                return
        if name not in self.variants and len(self.variants) >= _MOST_VARIANTS:
            return
        variant = self.variants.setdefault(name, Variant(name))
        if isinstance(record, Compiled):
            variant.compiled = record
        elif isinstance(record, Validated):
            variant.validated = record
        else:
            variant.outcome = record
