"""The figures of the page, all above the same axis of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from moec.cli import wording
from moec.cli.page import scales
from moec.cli.page.bins import Bin
from moec.cli.page.heat import Heat, heat, legend, picture
from moec.cli.page.timeline import Timeline
from moec.cli.wording import Tone
from moec.journal import Record, Rollback, Swap
from moec.markup import Element, element

_HEIGHT = 100
"""Of a curve, in the units of its drawing."""
_LEAST_CONTRAST = 4.0
"""The darkest colour is at least so many times the mean load: an even load looks even."""
_MOST_MARKS = 400
_MARKS = {Tone.GOOD: "✓", Tone.CHANGE: "▲", Tone.BAD: "✕", Tone.PLAIN: "·"}


@dataclass(frozen=True)
class Curve:
    """A measure over time.

    text, tick  what makes figures of its values, and of those at the axis
    binary      whether round values are powers of two
    """

    name: str
    text: Callable[[float | None], str]
    values: Sequence[float | None]
    tick: Callable[[float | None], str]
    binary: bool = False


def load_map(timeline: Timeline) -> Heat:
    """The experts' load as multiples of the mean."""
    loads = [one.load for one in timeline.bins.bins]
    count = max((len(load) for load in loads if load is not None), default=1)
    columns = [None if load is None or len(load) != count else [count * share for share in load] for load in loads]
    return heat(columns, count, _LEAST_CONTRAST)


def sizes(timeline: Timeline) -> list[int]:
    """The powers of two at or below the tokens of all calls, without gaps, ascending."""
    seen = sorted({size for one in timeline.bins.bins for size in one.histogram})
    if not seen:
        return []
    between = [1 << bit for bit in range(max(seen[0], 1).bit_length() - 1, seen[-1].bit_length())]
    return [0, *between] if seen[0] == 0 else between


def size_map(timeline: Timeline, rows: Sequence[int]) -> Heat:
    """The share of calls that have so many tokens."""
    columns = [[one.histogram[size] / one.calls for size in rows] if one.calls else None for one in timeline.bins.bins]
    return heat(columns, len(rows), 1.0)


def curves(timeline: Timeline) -> list[list[Curve]]:
    """The measures, those that belong together in one figure."""
    bins = timeline.bins.bins

    def of(measure: str) -> list[float | None]:
        return [getattr(one, measure) for one in bins]

    ms, plain, size = wording.milliseconds, wording.figure, wording.size_of
    p50, p99 = of("p50_ms"), of("p99_ms")
    overflows = of("overflow")
    dropped = Curve("Dropped by the capacity", wording.percent, overflows, wording.percent)
    return [
        [Curve("Latency p50", ms, p50, ms), Curve("Latency p99", ms, p99, ms)],
        [Curve("Calls a second", plain, of("calls_per_second"), plain)],
        [Curve("Tokens a call", plain, of("tokens_per_call"), plain)],
        [Curve("Imbalance", wording.factor, of("imbalance"), lambda value: f"{plain(value)}×")],
        *([[dropped]] if any(overflows) else []),
        [Curve("Weights in memory", size, of("memory"), size, binary=True)],
    ]


def figures(timeline: Timeline, load: Heat, size_rows: Sequence[int], by_size: Heat) -> Element:
    """Everything over time, with marks for what happened."""
    experts = len(load.rows) * load.per_row
    made = element("div", class_="charts", id="charts")
    made.append(_row("What happened", _marks(timeline), "marks", "▲ change ✓ kept ✕ failed"))
    for row in lanes(timeline):
        made.append(row)
    described = f"Load of {experts} experts over time; the table of experts below has the figures"
    row = _row("Load of each expert", picture(load, described), "heat", f"0 at the top, {experts - 1} at the bottom")
    row[0].append(legend(load, [(0.0, "0"), (1.0, "mean"), (load.top, f"{load.top:.0f}×")]))
    made.append(row)
    for group in curves(timeline):
        if any(value is not None for curve in group for value in curve.values):
            made.append(_curves(group))
        if group[0].name == "Tokens a call" and len(size_rows) > 1:
            described = "Share of calls by their tokens, in powers of two, over time"
            ends = f"{size_rows[0]:,} at the bottom, {size_rows[-1]:,} at the top"
            row = _row("Calls by their tokens", picture(by_size, described, upwards=True), "heat sizes", ends)
            row[0].append(legend(by_size, [(0.0, "0"), (0.1, "⅒"), (1.0, "all")]))
            made.append(row)
    made.append(_row("", _axis(timeline), "axis"))
    made.append(_lines(timeline))
    return made


def marks_alone(timeline: Timeline) -> Element:
    """What happened over time, of a journal without samples."""
    made = element("div", class_="charts")
    made.append(_row("What happened", _marks(timeline), "marks", "▲ change ✕ failed"))
    made.append(_row("", _axis(timeline), "axis"))
    return made


def lanes(timeline: Timeline) -> list[Element]:
    """When each variant ran, one below the other."""
    bins = timeline.bins.bins
    names = list(dict.fromkeys(name for one in bins for name in sorted(one.active, key=lambda n: (n != "base", n))))
    rows = []
    for name in names[:64]:
        lane = element("div", class_="lane")
        spans = []
        for active, group in groupby(enumerate(bins), key=lambda one: name in one[1].active):
            places = [place for place, _ in group]
            if active:
                left, width = 100 * places[0] / len(bins), 100 * len(places) / len(bins)
                lane.append(element("span", style=f"left: {left:.3f}%; width: {width:.3f}%"))
                begin = timeline.bins.begin + places[0] * timeline.bins.span
                spans.append(f"from {clock(begin)} for {wording.seconds(len(places) * timeline.bins.span)}")
        lane.set("role", "img")
        lane.set("aria-label", f"{name} ran {', '.join(spans[:8])}")
        lane.set("title", f"{name} ran {', '.join(spans[:8])}")
        rows.append(_row(name, lane, "base" if name == "base" else "variant"))
    return rows


def clock(time: float) -> str:
    return scales.local(time).strftime("%H:%M:%S")


def mark_events(timeline: Timeline) -> list[tuple[int, Record]]:
    """The events that have marks, with their numbers: the last ones of very many."""
    numbered = list(enumerate(timeline.events))
    loud = [(number, event) for number, event in numbered if wording.told(event).tone is not Tone.PLAIN]
    return loud[-_MOST_MARKS:]


def _marks(timeline: Timeline) -> Element:
    made = element("div", class_="marks")
    for number, event in mark_events(timeline):
        words = wording.told(event)
        title = " ".join(filter(None, (clock(event.time), words.kind, words.about)))
        place = 100 * _share(timeline, event.time)
        made.append(
            element(
                "a",
                _MARKS[words.tone],
                href=f"#event-{number}",
                class_=words.tone.value,
                style=f"left: {place:.3f}%",
                title=f"{title}: {words.text}",
                aria_label=title,
            )
        )
    return made


def _lines(timeline: Timeline) -> Element:
    """Lines through all figures, where variants came and went."""
    made = element("div", class_="lines", aria_hidden="true")
    for _, event in mark_events(timeline):
        if isinstance(event, Swap | Rollback):
            kind = "bad" if isinstance(event, Rollback) else "change"
            made.append(element("i", class_=kind, style=f"left: {100 * _share(timeline, event.time):.3f}%"))
    made.append(element("i", id="cursor", hidden="hidden"))
    return made


def _curves(group: Sequence[Curve]) -> Element:
    known = [value for curve in group for value in curve.values if value is not None]
    axis = scales.scale(known, group[0].binary)
    count = len(group[0].values)
    drawing = element(
        "svg", viewBox=f"0 0 {count} {_HEIGHT}", preserveAspectRatio="none", role="img", aria_label=_described(group)
    )
    for tick in axis.ticks:
        y = _HEIGHT * (1 - axis.place(tick))
        drawing.append(element("path", d=f"M0 {y:.1f}H{count}", class_="grid"))
    for number, curve in enumerate(group):
        drawing.append(element("path", d=_path(curve.values, axis), class_=f"curve c{number}"))
    ticks = element("div", class_="ticks", aria_hidden="true")
    for tick in axis.ticks:
        ticks.append(element("span", group[0].tick(tick), style=f"bottom: {100 * axis.place(tick):.1f}%"))
    label = " and ".join([group[0].name, *(curve.name.rpartition(" ")[2] for curve in group[1:])])
    row = _row(label, element("div", drawing, class_="plot"), "curves", "logarithmic" if axis.logarithmic else "")
    if len(group) > 1:
        keys = (element("span", curve.name.rpartition(" ")[2], class_=f"key c{n}") for n, curve in enumerate(group))
        row[0].append(element("p", *keys, class_="keys"))
    row[0].append(ticks)
    return row


def _path(values: Sequence[float | None], axis: scales.Scale) -> str:
    """Lines between the middles of spans that follow each other; a span alone is a short line."""
    parts = []
    for known, group in groupby(enumerate(values), key=lambda one: one[1] is not None):
        if known:
            points = [
                f"{place + 0.5:g} {_HEIGHT * (1 - min(axis.place(value), 1.0)):.1f}"
                for place, value in group
                if value is not None
            ]
            parts.append("M" + "L".join(points) + ("h.6" if len(points) == 1 else ""))
    return "".join(parts)


def _described(group: Sequence[Curve]) -> str:
    """What a curve shows, for those who do not see it."""
    said = []
    for curve in group:
        known = [value for value in curve.values if value is not None]
        if known:
            ends = f"from {curve.text(min(known))} to {curve.text(max(known))}, at the end {curve.text(known[-1])}"
            said.append(f"{curve.name} over time, {ends}")
    return "; ".join(said)


def _row(label: str, content: Element, kind: str, more: str = "") -> Element:
    name = element("div", element("h3", label) if label else None, class_="label")
    if more:
        name.append(element("p", more))
    return element("div", name, element("div", content, class_="content"), class_=f"row {kind}")


def _axis(timeline: Timeline) -> Element:
    made = element("div", class_="time", aria_hidden="true")
    for time, name in scales.time_ticks(timeline.bins.begin, timeline.end):
        made.append(element("span", name, style=f"left: {100 * _share(timeline, time):.2f}%"))
    return made


def _share(timeline: Timeline, time: float) -> float:
    """Where a time lies on the axis, 0..1."""
    begin = timeline.bins.begin
    return min(max((time - begin) / (timeline.end - begin), 0.0), 1.0)


def coarse(bins: Sequence[Bin], most: int) -> list[tuple[int, int, Bin]]:
    """The spans, summed up to at most so many: first, behind the last, sums."""
    step = max(1, -(-len(bins) // most))
    found = []
    for first in range(0, len(bins), step):
        whole = Bin()
        for one in bins[first : first + step]:
            whole.merge(one)
        found.append((first, min(first + step, len(bins)), whole))
    return found
