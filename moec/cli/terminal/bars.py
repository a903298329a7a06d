"""Bars, strips and curves of block characters: they tell by shape first, by colour besides."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rich.style import Style
from rich.text import Text

_UP = " ▁▂▃▄▅▆▇█"
_ALONG = " ▏▎▍▌▋▊▉█"
_QUIET = Style(dim=True)
_HEAT = ((0.5, "blue"), (1.5, "cyan"), (3.0, "yellow"))
"""Below so many times the mean, this colour; red above."""
_HOTTEST = "red"
_EIGHT = 8


def heat(times: float) -> str:
    """The colour of an expert that has so many times the mean load."""
    return next((colour for below, colour in _HEAT if times < below), _HOTTEST)


def along(share: float, width: int) -> str:
    """A bar to the right: `share` (0..1) of `width` columns."""
    eighths = round(min(max(share, 0.0), 1.0) * width * _EIGHT)
    full, rest = divmod(eighths, _EIGHT)
    return ("█" * full + (_ALONG[rest] if rest else "")).ljust(width)


def curve(values: Sequence[float | None], width: int) -> str:
    """All values in at most `width` columns, means where there are more; a blank where there is none.

    It shows how a measure changes: its span fills the height, but no less than a quarter of its size does.
    """
    columns = max(min(width, len(values)), 1)
    ends = [len(values) * column // columns for column in range(columns + 1)]
    groups = [[v for v in values[first:end] if v is not None] for first, end in pairwise(ends)]
    means = [sum(group) / len(group) if group else None for group in groups]
    known = [mean for mean in means if mean is not None]
    if not known:
        return " " * width
    middle = (max(known) + min(known)) / 2
    span = max(max(known) - min(known), middle / 4) or 1.0
    levels = (None if mean is None else round(4.5 + 7 * (mean - middle) / span) for mean in means)
    return "".join(" " if level is None else _UP[min(max(level, 1), _EIGHT)] for level in levels).rjust(width)


def load_bars(load: Sequence[float], width: int) -> list[Text]:
    """A bar to the right for each of a few experts, in as many columns as fit."""
    columns = 2 if len(load) > _EIGHT and width >= 100 else 1
    rows = -(-len(load) // columns)
    digits = len(str(len(load) - 1))
    room = width // columns - digits - 21
    top = max(max(load), 1e-9)
    lines = [Text("  ") for _ in range(rows)]
    for number, share in enumerate(load):
        times = share * len(load)
        line = lines[number % rows]
        line.append(f"{number:>{digits}} ", _QUIET)
        line.append(along(share / top, max(room, 4)), heat(times))
        line.append(f"{100 * share:6.1f} %")
        line.append(f"{times:6.2f}×  ", _QUIET)
    return lines


def strip_top(load: Sequence[float]) -> float:
    """How many times the mean is the full height of `load_strips`; what has more is as high, and red."""
    return 2.0 if max(load) * len(load) <= 2.0 else 4.0


def load_strips(load: Sequence[float], width: int, most: int) -> list[Text]:
    """Upright bars for many experts, beside and below each other, in about `most` lines, with numbers below."""
    room = width - 4
    step = next((s for s in (16, 8, 4) if s <= room), 1)
    wide = max(1, min(3, room // len(load)))
    rows = -(-len(load) // max(room // wide // step * step, 1))
    per_row = -(-len(load) // rows // step) * step
    high = max(1, min(4, most // rows - 1))
    top = strip_top(load) / len(load)
    lines = []
    for first in range(0, len(load), per_row):
        part = load[first : first + per_row]
        for level in range(high - 1, -1, -1):
            line = Text("  ")
            for share in part:
                eighths = min(max(round(min(share / top, 1.0) * high * _EIGHT) - level * _EIGHT, 0), _EIGHT)
                if level == 0 and share > 0:
                    eighths = max(eighths, 1)
                block = _UP[eighths] * (wide - (wide > 1))
                line.append(block.ljust(wide), heat(share * len(load)))
            lines.append(line)
        lines.append(Text("  " + _numbers(first, len(part), wide), _QUIET))
    return lines


def _numbers(first: int, count: int, wide: int) -> str:
    """The experts' numbers below a row of bars of so many columns each, with room between them."""
    step = next(step for step in (16, 8, 4) if step * wide < 24)
    return "".join(f"{first + at}".ljust(min(step, count - at) * wide) for at in range(0, count, step))
