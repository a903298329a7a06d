"""A drawing (SVG) of when each step of a schedule runs: for every rank and stream a lane, predicted above measured.

It needs nothing but itself: no script, no font, no other file; colours follow the reader's light or dark scheme.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from moec.markup import Element, element

WIDTH, LEFT, RIGHT = 1180, 136, 20
_LANE, _GAP, _HEAD, _RANK_GAP, _LEGEND_LINE = 20, 4, 20, 14, 18
_CHARACTER = 6.3
"""Width of a character of a step's name at 11 px, generously."""
_TICKS = 9

COLOURS: Mapping[str, tuple[str, str]] = {
    "route": ("#7c3aed", "#a98bf0"),
    "capacity": ("#6d6a75", "#98959f"),
    "counts": ("#0f766e", "#3fb5aa"),
    "pack": ("#a16207", "#d0a13c"),
    "dispatch": ("#1c5cab", "#6ba6ea"),
    "experts": ("#15803d", "#4fb873"),
    "local": ("#0e7490", "#4ab4cc"),
    "shared": ("#4d7c0f", "#93bd4b"),
    "combine": ("#b45309", "#ef9a50"),
    "collect": ("#be185d", "#ee7fae"),
    "other": ("#5b6775", "#93a1b0"),
}
"""Of what a step does, in a light and in a dark surrounding."""

_STYLE = """
.page {{ fill: #ffffff; }} text {{ fill: #16202c; font: 11px system-ui, sans-serif; }}
.title {{ font-size: 15px; font-weight: 600; }}
.rank {{ font-weight: 600; }} .quiet {{ fill: #5b6775; }}
.right {{ text-anchor: end; }} .middle {{ text-anchor: middle; }}
.lane {{ fill: #f3f5f8; }} .tick {{ stroke: #dfe4ea; stroke-width: 1; }}
.step rect {{ stroke-width: 1; }} .step text {{ fill: #ffffff; }} .predicted rect {{ fill-opacity: .16; }}
.predicted text {{ fill: #16202c; }}
{light}
@media (prefers-color-scheme: dark) {{
.page {{ fill: #0e141b; }} text {{ fill: #e4eaf1; }} .quiet {{ fill: #93a1b0; }} .lane {{ fill: #18212b; }}
.tick {{ stroke: #2a3541; }} .step text {{ fill: #0e141b; }} .predicted rect {{ fill-opacity: .22; }}
.predicted text {{ fill: #e4eaf1; }}
{dark}
}}
"""


@dataclass(frozen=True)
class Bar:
    """A step: what it does (of COLOURS, or anything else), and seconds from the beginning of the call."""

    name: str
    does: str
    begin: float
    end: float


Lanes = Mapping[str, Sequence[Bar]]
"""The steps of each stream of a rank."""


@dataclass(frozen=True)
class Rank:
    """One rank, as it is called; `measured` is None where only a prediction is drawn."""

    name: str
    predicted: Lanes
    measured: Lanes | None = None

    @property
    def streams(self) -> list[str]:
        """Of both, in the order in which they begin."""
        return list(dict.fromkeys([*self.predicted, *(self.measured or {})]))


def figure(title: str, notes: Sequence[str], ranks: Sequence[Rank]) -> str:
    """The text of an SVG file; `notes` are lines below the title."""
    lanes = [lane for rank in ranks for which in (rank.predicted, rank.measured or {}) for lane in which.values()]
    end = max((bar.end for lane in lanes for bar in lane), default=0.0) or 1e-3
    kinds = [kind for kind in COLOURS if any(_class(bar.does) == kind for lane in lanes for bar in lane)]
    both = any(rank.measured is not None for rank in ranks)

    y = 30
    head: list[Element] = [element("text", title, x=16, y=y, class_="title")]
    for note in notes:
        y += 17
        head.append(element("text", note, x=16, y=y, class_="quiet"))
    y += 12
    legend = _legend(kinds, both, y)
    top = y + _LEGEND_LINE + 26
    body: list[Element] = []
    at = top
    for rank in ranks:
        drawn, at = _rank(rank, at, end)
        body += drawn
    height = at + 26
    axis = _axis(end, top - 6, at)
    root = element(
        "svg",
        element("title", title),
        element("style", _style()),
        element("rect", x=0, y=0, width=WIDTH, height=height, class_="page"),
        *head,
        *legend,
        *axis,
        *body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height}",
        width=WIDTH,
        height=height,
        role="img",
    )
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _style() -> str:
    def rules(which: int) -> str:
        return "\n".join(f".{kind} rect {{ fill: {c[which]}; stroke: {c[which]}; }}" for kind, c in COLOURS.items())

    return _STYLE.format(light=rules(0), dark=rules(1))


def _class(does: str) -> str:
    return does if does in COLOURS else "other"


def _place(seconds: float, end: float) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * seconds / end, 2)


def _rank(rank: Rank, y: int, end: float) -> tuple[list[Element], int]:
    drawn = [element("text", rank.name, x=16, y=y + 13, class_="rank")]
    y += _HEAD
    for stream in rank.streams:
        shown = [("predicted", rank.predicted)]
        if rank.measured is not None:
            shown.append(("measured", rank.measured))
        label = element("text", stream, x=LEFT - 10, y=y + len(shown) * _LANE / 2 + 4, class_="right quiet")
        drawn.append(label)
        for which, lanes in shown:
            drawn.append(element("rect", x=LEFT, y=y, width=WIDTH - LEFT - RIGHT, height=_LANE - 1, class_="lane"))
            drawn += [_bar(bar, which, y, end) for bar in lanes.get(stream, ())]
            y += _LANE
        y += _GAP
    return drawn, y + _RANK_GAP


def _bar(bar: Bar, which: str, y: int, end: float) -> Element:
    left, right = _place(bar.begin, end), _place(bar.end, end)
    width = max(0.75, round(right - left, 2))
    said = f"{bar.name}, {which}: {_duration(bar.end - bar.begin)}, from {_duration(bar.begin)} to {_duration(bar.end)}"
    return element(
        "g",
        element("title", said),
        element("rect", x=left, y=y + 1.5, width=width, height=_LANE - 4, rx=2),
        element("text", bar.name, x=left + 4, y=y + 14) if width > _CHARACTER * len(bar.name) + 6 else None,
        class_=f"step {which} {_class(bar.does)}",
    )


def _legend(kinds: Iterable[str], both: bool, y: int) -> list[Element]:
    drawn, x = [], 16.0
    for kind in kinds:
        box = element("rect", x=x, y=y, width=12, height=12, rx=2)
        drawn.append(element("g", box, class_=f"step measured {kind}"))
        drawn.append(element("text", kind, x=x + 17, y=y + 10))
        x += 30 + _CHARACTER * len(kind)
    if both:
        drawn.append(
            element("text", "pale: predicted; full: measured", x=WIDTH - RIGHT, y=y + 10, class_="right quiet")
        )
    return drawn


def _axis(end: float, top: int, bottom: int) -> list[Element]:
    step = _round_step(end / _TICKS)
    drawn: list[Element] = []
    for number in range(math.floor(end / step * (1 + 1e-9)) + 1):
        x = _place(number * step, end)
        drawn.append(element("line", x1=x, x2=x, y1=top, y2=bottom, class_="tick"))
        drawn.append(element("text", _duration(number * step), x=x, y=top - 4, class_="middle quiet"))
        drawn.append(element("text", _duration(number * step), x=x, y=bottom + 14, class_="middle quiet"))
    return drawn


def _round_step(value: float) -> float:
    """The next 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(part * power for part in (1.0, 2.0, 5.0, 10.0) if part * power >= value * (1 - 1e-9))


def _duration(seconds: float) -> str:
    if seconds == 0:
        return "0"
    if seconds >= 1:
        return f"{seconds:.4g} s"
    return f"{1e3 * seconds:.4g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.4g} µs"
