"""What a journal says, in words and figures for people; the same in the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from moec.cli.sizes import size
from moec.journal import (
    Compiled,
    Decision,
    Evicted,
    Failed,
    Moved,
    Other,
    Planned,
    Record,
    Rollback,
    Run,
    Sample,
    Start,
    Stop,
    Swap,
    Tables,
    Travelled,
    Validated,
)

NOTHING = "–"
_NAMED = 8


class Tone(Enum):
    """How an event is meant."""

    PLAIN = "plain"
    GOOD = "good"
    CHANGE = "change"
    BAD = "bad"


@dataclass(frozen=True)
class Told:
    """An event in words: one that says what kind it is, the variant it is about, and a sentence."""

    kind: str
    about: str
    text: str
    tone: Tone


def told(record: Record) -> Told:
    """The words for everything that is no sample."""
    match record:
        case Decision(what="compile"):
            return Told("compile", record.candidate or "", record.why, Tone.PLAIN)
        case Decision(what="keep", candidate=None):
            return Told("stay", "", record.why, Tone.PLAIN)
        case Decision(what="keep"):
            return Told("keep", record.candidate or "", record.why, Tone.GOOD)
        case Decision():
            return Told(record.what or "decision", record.candidate or "", record.why, Tone.PLAIN)
        case Compiled():
            return Told("compiled", record.candidate, _origin(record), Tone.PLAIN)
        case Failed():
            return Told("failed", record.candidate or "", record.why, Tone.BAD)
        case Validated():
            return Told("checked", record.candidate, _checked(record), Tone.PLAIN)
        case Swap():
            return Told("swap", record.to, _swapped(record), Tone.CHANGE)
        case Rollback():
            return Told("rollback", record.before, f"back to {record.to}: {record.why}", Tone.BAD)
        case Evicted():
            return Told("evicted", record.variant, record.why, Tone.CHANGE)
        case Moved():
            return Told("moved", "", _moved(record), Tone.CHANGE)
        case Planned():
            return Told(record.what or "plan", record.layer, record.why, Tone.PLAIN)
        case Travelled():
            return Told("travelled", "", _travelled(record), Tone.PLAIN)
        case Tables():
            return Told("tables", "", _in_force(record), Tone.CHANGE)
        case Start(ranks=()):
            return Told("start", "", f"{record.layer} begins to adapt", Tone.PLAIN)
        case Start():
            return Told(
                "start", "", f"experts of {record.layer} may move between {len(record.ranks)} ranks", Tone.PLAIN
            )
        case Stop():
            return Told("stop", "", "it ended", Tone.PLAIN)
        case Other():
            return Told(record.event, "", "this moec does not know what that is", Tone.PLAIN)
        case Sample():
            return Told("sample", "", f"{count(record.calls)} calls", Tone.PLAIN)


def _origin(record: Compiled) -> str:
    took = f"in {seconds(record.seconds)}"
    return {"compiler": took, "cache": f"from the cache {took}", "prebuilt": f"prebuilt in the artifact, {took}"}.get(
        record.source, took
    )


def _checked(record: Validated) -> str:
    same = {True: "the same bits", False: f"another result, error {figure(record.error)}", None: ""}[record.identical]
    faster = "" if record.gain is None else f"{factor(record.gain)} in the background"
    times = "" if record.new_ms is None else f"{milliseconds(record.new_ms)} instead of {milliseconds(record.old_ms)}"
    return "; ".join(filter(None, (same, ", ".join(filter(None, (faster, times))))))


def _swapped(record: Swap) -> str:
    others = [name for name in record.variants if name != record.to]
    return f"published beside {', '.join(others)}, on trial" if others else "published"


def _moved(record: Moved) -> str:
    ways = [
        f"{way} memory: {experts(numbers)}"
        for way, numbers in (("into", record.entered), ("out of", record.left))
        if numbers
    ]
    size = "" if record.bytes is None else f"{size_of(record.bytes)} in {seconds(record.seconds)}"
    return "; ".join(filter(None, (*ways, size)))


def _travelled(record: Travelled) -> str:
    many = "experts" if record.experts is None else f"{record.experts:,} cop{'y' if record.experts == 1 else 'ies'}"
    ways = (("sent", record.sent), ("received", record.received), ("waiting beside full slots", record.staged))
    sizes = [f"{size_of(nbytes)} {way}" for way, nbytes in ways if nbytes]
    took = "" if record.seconds is None else f" in {seconds(record.seconds)}"
    return "; ".join(filter(None, (f"{many} between all ranks{took}", ", ".join(sizes) and f"{', '.join(sizes)} here")))


def _in_force(record: Tables) -> str:
    at = "" if record.step is None else f" at step {record.step:,}"
    kept = "" if record.seconds is None else f", which waited {seconds(record.seconds)} for it"
    return f"tables {count(record.version)} are in force{at}{kept}"


def joined(records: Iterable[Record]) -> list[Record]:
    """The same, with moves of experts that follow each other as one: they come and go all the time."""
    found: list[Record] = []
    for record in records:
        before = found[-1] if found else None
        if isinstance(record, Moved) and isinstance(before, Moved):
            record = Moved(
                record.time,
                tuple(sorted({*before.entered, *record.entered})),
                tuple(sorted({*before.left, *record.left})),
                (before.bytes or 0) + (record.bytes or 0),
                (before.seconds or 0.0) + (record.seconds or 0.0),
            )
            found.pop()
        found.append(record)
    return found


def experts(numbers: Sequence[int]) -> str:
    """`experts 3, 17`; the first few of many."""
    named = ", ".join(map(str, numbers[:_NAMED]))
    more = f" and {len(numbers) - _NAMED:,} more" if len(numbers) > _NAMED else ""
    return f"expert{'s' * (len(numbers) != 1)} {named}{more}"


def range_of(run: Run) -> str:
    """The numbers of tokens that a variant runs."""
    if run.last is None:
        return f"{run.first:,} and more" if run.first else "any"
    return f"{run.first:,}" if run.first == run.last else f"{run.first:,}–{run.last:,}"


def figure(value: float | None) -> str:
    """Three digits that count."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0 or 1000 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def count(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"


def factor(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}×"


def percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f} %"


def milliseconds(value: float | None) -> str:
    return NOTHING if value is None else f"{figure(value)} ms"


def size_of(number: float | None) -> str:
    """Bytes."""
    return NOTHING if number is None else size(int(number))


def seconds(value: float | None) -> str:
    """A duration: `0.62 s`, `35 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    if value is None:
        return NOTHING
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    if value < 10:
        return f"{value:.2g} s"
    if value < 120:
        return f"{value:.0f} s"
    minutes, hours = int(value // 60), int(value // 3600)
    if minutes < 60:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"
