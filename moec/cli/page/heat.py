"""Heat maps: rows of values over time as a picture, in colours for light and for dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from moec.cli.page.png import Colour, data_uri, indexed, ramp
from moec.markup import Element, element

LIGHT: tuple[Colour, ...] = ((240, 245, 251), (176, 210, 244), (86, 152, 224), (28, 92, 171), (9, 35, 77))
DARK: tuple[Colour, ...] = ((24, 33, 46), (22, 62, 117), (42, 120, 214), (134, 182, 239), (238, 246, 255))
_MOST_ROWS = 1024
_LEAST_HEIGHT, _HEIGHT = 96, 480
"""Pixels of the page."""


@dataclass(frozen=True)
class Heat:
    """Values over time, one row a thing, as bytes: 0 is nothing known, 1..255 the cube root of the share of `top`.

    The root lets a person tell small values apart beside a few that are many times as large.

    per_row  how many things a row is the mean of
    """

    rows: tuple[bytes, ...]
    top: float
    per_row: int

    def value(self, byte: int) -> float:
        return self.top * ((byte - 1) / 254) ** 3


def heat(columns: Sequence[Sequence[float] | None], count: int, least_top: float) -> Heat:
    """columns: for each span of time the `count` values, or None; least_top: what the darkest colour is at least."""
    per_row = -(-count // _MOST_ROWS)
    means = [None if column is None else _means(column, per_row) for column in columns]
    top = max((max(column, default=0.0) for column in means if column is not None), default=0.0)
    top = max(top, least_top)
    rows = []
    for row in range(-(-count // per_row)):
        rows.append(bytes(0 if column is None else _byte(column[row], top) for column in means))
    return Heat(tuple(rows), top, per_row)


def picture(made: Heat, description: str, upwards: bool = False) -> Element:
    """The image; `upwards`: the first row is at the bottom."""
    rows = made.rows[::-1] if upwards else made.rows
    light, dark = (data_uri(indexed(rows, ramp(stops))) for stops in (LIGHT, DARK))
    height = max(_LEAST_HEIGHT, min(_HEIGHT, 7 * len(rows)))
    return element(
        "picture",
        element("source", srcset=dark, media="(prefers-color-scheme: dark)"),
        element("img", src=light, alt=description, style=f"height: {height}px"),
    )


def legend(made: Heat, marks: Sequence[tuple[float, str]]) -> Element:
    """The colours with the values that they stand for."""
    bar = element("span", class_="ramp")
    for value, name in marks:
        place = math.cbrt(min(value / made.top, 1.0))
        bar.append(element("span", name, class_="tick", style=f"left: {100 * place:.1f}%"))
    return element("p", bar, class_="legend", aria_hidden="true")


def _byte(value: float, top: float) -> int:
    return 1 + round(254 * math.cbrt(min(max(value / top, 0.0), 1.0)))


def _means(column: Sequence[float], per_row: int) -> Sequence[float]:
    if per_row == 1:
        return column
    return [sum(part) / len(part) for at in range(0, len(column), per_row) if (part := column[at : at + per_row])]
