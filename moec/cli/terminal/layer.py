"""One adaptation as lines of text: load, variants, guards, what happened."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import islice

from rich.style import Style
from rich.text import Text

from moec.cli import wording
from moec.cli.terminal.bars import along, curve, heat, load_bars, load_strips, strip_top
from moec.cli.terminal.watched import Status, Watched
from moec.cli.wording import Tone
from moec.journal import Guard, Run, Sample

_FEW_EXPERTS = 16
_SMOOTHED = 5
"""Samples, about seconds, whose load is shown."""
_TODAY = 20 * 3600.0
_QUIET = Style(dim=True)
_HEAD = Style(bold=True)
STATUS = {
    Status.RUNNING: ("●", "green"),
    Status.SILENT: ("●", "yellow"),
    Status.STOPPED: ("■", "blue"),
    Status.DIED: ("✗", "red"),
    Status.UNKNOWN: ("?", "yellow"),
}
TONES = {Tone.PLAIN: "", Tone.GOOD: "green", Tone.CHANGE: "cyan", Tone.BAD: "red"}
_GUARDS = {"holding": ("◐", "yellow"), "tripped": ("●", "red"), "cooling": ("○", "cyan")}


def title(one: Watched, now: float, width: int) -> list[Text]:
    """Which layer it is, and what its process does."""
    status = one.status(now)
    mark, colour = STATUS[status]
    line = Text()
    line.append(f"{one.start.layer if one.start else one.path.name}  ", _HEAD)
    line.append(f"{mark} {_status(one, status, now)}", colour)
    facts = []
    if one.start is not None:
        facts = [
            f"pid {one.start.pid}" if one.start.pid else "",
            f"{one.start.experts} experts, {one.start.slots} a token" if one.start.experts else "",
            f"experts move between {len(one.start.ranks)} ranks" if one.start.ranks else "",
            one.start.variant,
            f"policy {one.start.layout}" if one.start.layout else "",
            f"since {clock(one.start.time, now)}",
            f"{one.damaged} damaged lines" if one.damaged else "",
        ]
    lines = [line]
    for fact in filter(None, facts):
        piece = ("   " if lines[-1] is line else " · ") + fact
        if lines[-1].cell_len + len(piece) > width:
            lines.append(Text())
            piece = fact
        lines[-1].append(piece, _QUIET)
    return lines


def figures(samples: Sequence[Sample], width: int) -> list[Text]:
    """The measures now, each with its last minutes as a curve."""
    last = samples[-1]
    shown: tuple[tuple[str, str, list[float | None]], ...] = (
        ("calls/s", wording.count(last.calls_per_second), [s.calls_per_second for s in samples]),
        ("tokens a call", wording.figure(last.tokens_per_call), [s.tokens_per_call for s in samples]),
        ("latency p50", wording.milliseconds(_latest(samples, "p50_ms")), [s.p50_ms for s in samples]),
        ("latency p99", wording.milliseconds(_latest(samples, "p99_ms")), [s.p99_ms for s in samples]),
        ("imbalance", wording.factor(last.imbalance), [s.imbalance for s in samples]),
        ("memory", wording.size_of(last.memory), [float(s.memory) if s.memory else None for s in samples]),
    )
    if any(s.overflow for s in samples):
        shown += (("dropped", wording.percent(last.overflow), [s.overflow for s in samples]),)
    columns = 2 if width >= 72 else 1
    room = (width - 2 * columns) // columns - 26
    rows = -(-len(shown) // columns)
    lines = [Text() for _ in range(rows)]
    for place, (name, value, values) in enumerate(shown):
        line = lines[place // columns]
        line.append(f"  {name:<13}", _QUIET)
        line.append(f"{value:>9}  ", _HEAD)
        line.append(curve(values, max(room, 1)), "cyan" if room > 0 else "")
    return lines


def load(samples: Sequence[Sample], width: int, most: int) -> list[Text]:
    """The load of the experts in the last seconds that had any."""
    shares = recent_load(samples)
    if not shares:
        return [heading("Load"), Text("  no call yet", _QUIET)]
    few = len(shares) <= min(_FEW_EXPERTS, most)
    order = sorted(range(len(shares)), key=lambda expert: -shares[expert])
    line = heading("Load", "hottest ")
    for place, expert in enumerate(order[:3]):
        times = shares[expert] * len(shares)
        line.append(f"{', ' if place else ''}{expert} (", _QUIET)
        line.append(f"{times:.1f}×", heat(times))
        line.append(")" if place else " the mean)", _QUIET)
    idle = sum(share == 0 for share in shares)
    line.append(f" · {idle or 'none'} of {len(shares)} empty", _QUIET)
    scale = f" · full height is {strip_top(shares):.0f}×"
    if not few and line.cell_len + len(scale) <= width:
        line.append(scale, _QUIET)
    return [line, *(load_bars(shares, width) if few else load_strips(shares, width, most))]


def recent_load(samples: Sequence[Sample]) -> list[float]:
    """The shares of the last samples that had a load, weighted by their tokens."""
    found = list(islice((s for s in reversed(samples) if any(s.load)), _SMOOTHED))
    found = [s for s in found if len(s.load) == len(found[0].load)]
    weights = [max(s.calls_per_second * s.tokens_per_call, 1e-9) for s in found]
    columns = zip(*(s.load for s in found), strict=True)
    return [sum(w * share for w, share in zip(weights, column, strict=True)) / sum(weights) for column in columns]


def variants(sample: Sample) -> list[Text]:
    """Which variant runs which numbers of tokens."""
    runs = sample.runs or tuple(Run(0, None, name) for name in sample.active)
    wide = max((len(wording.range_of(run)) for run in runs), default=0)
    lines = [heading("Variants", "tokens a call" if sample.runs else "")]
    for run in runs:
        line = Text("  ")
        line.append(f"{wording.range_of(run) if sample.runs else '':>{wide if sample.runs else 0}}  ", _QUIET)
        line.append(run.variant, "" if run.variant == "base" else "cyan")
        if run.trial:
            line.append(f"  takes turns with {run.trial}, on trial", "yellow")
        lines.append(line)
    return lines


def guards(sample: Sample, width: int) -> list[Text]:
    """Each condition, how long it has held, and its measures now."""
    lines = [heading("Guards", "when compiling is considered")]
    for guard in sample.guards:
        mark, colour = _GUARDS.get(guard.state, ("○", "dim"))
        lines.append(Text.assemble("  ", (mark, colour), f" {guard.text}"))
        share = guard.held / guard.window if guard.window else float(guard.state == "tripped")
        line = Text.assemble("    ", (f"{guard.state:<8}", colour), " ")
        line.append(along(share, min(20, max(width - 50, 4))).replace(" ", "·"), colour)
        line.append(f" {_held(guard)}", _QUIET)
        values = "  ".join(f"{name} {_measure(name, value)}" for name, value in guard.values.items())
        if line.cell_len + len(values) + 3 <= width:
            line.append(f"   {values}")
            lines.append(line)
        else:
            lines += [line, Text(f"    {values}")]
    return lines


def history(one: Watched, now: float, width: int, most: int) -> list[Text]:
    """The last events, the latest first, each wrapped."""
    lines = [heading("What happened")]
    for record in reversed(one.events):
        words = wording.told(record)
        line = Text.assemble(
            (f"  {clock(record.time, now):<8}  ", _QUIET), (f"{words.kind:<9}", TONES[words.tone]), " "
        )
        sentence = Text(words.text)
        if words.about:
            sentence = Text.assemble((words.about, "bold"), "  ", words.text)
        indent = line.cell_len
        wrapped = wrap(sentence, max(width - indent, 20))
        lines.append(line.append_text(wrapped[0]))
        lines += [Text(" " * indent).append_text(more) for more in wrapped[1:3]]
        if len(lines) > most:
            break
    return lines[: most + 1]


def heading(text: str, more: str = "") -> Text:
    line = Text.assemble((text, _HEAD))
    if more:
        line.append(f"   {more}", _QUIET)
    return line


def wrap(text: Text, width: int) -> list[Text]:
    """In lines of at most `width` columns, broken between words where that is possible."""
    from rich.console import Console

    return list(text.wrap(Console(width=width, no_color=True), width)) or [Text()]


def clock(time: float, now: float) -> str:
    """The time of day, and which day where that is not obvious; 11 columns at most."""
    return datetime.fromtimestamp(time).strftime("%H:%M:%S" if 0 <= now - time < _TODAY else "%m-%d %H:%M")


def _status(one: Watched, status: Status, now: float) -> str:
    ago = wording.seconds(max(now - one.last, 0.0))
    if status is Status.SILENT:
        return f"silent for {ago}"
    if status in (Status.STOPPED, Status.DIED):
        return f"{status.value} {ago} ago"
    said: str = status.value
    return said


def _latest(samples: Sequence[Sample], name: str) -> float | None:
    found: float | None = getattr(samples[-1], name)
    return found


def _held(guard: Guard) -> str:
    if guard.unit == "calls":
        return f"{wording.count(guard.held)} of {wording.count(guard.window)} calls"
    return f"{guard.held:.0f} of {guard.window:.0f} s"


def _measure(name: str, value: float) -> str:
    if name in ("share", "empty", "overflow"):
        return wording.percent(value)
    return wording.size_of(value) if name == "memory" else wording.figure(value)
