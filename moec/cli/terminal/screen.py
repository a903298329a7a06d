"""The whole picture: an overview where there are several layers, and one of them in full, fitted to the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from rich.text import Text

from moec.cli import wording
from moec.cli.terminal import layer
from moec.cli.terminal.watched import Watched

_QUIET = Style(dim=True)
_CHOSEN = Style(reverse=True)
_MOST_HISTORY = 40
_KEYS = "q quits"
_KEYS_OF_SEVERAL = "↑ ↓ choose a layer · q quits"


def picture(watched: Sequence[Watched], chosen: int, now: float, width: int, height: int | None) -> list[Text]:
    """Lines of at most `width` columns; at most `height`, or where that is None as many as there is to say."""
    lines: list[Text] = []
    if len(watched) > 1:
        room = len(watched) if height is None else max(height // 3 - 2, 1)
        lines += [*_overview(watched, chosen, now, width, room), Text()]
    one = watched[chosen]
    if height is None:
        lines += _detail(one, now, width, None)
    else:
        lines += _detail(one, now, width, height - len(lines) - 1)
        keys = _KEYS_OF_SEVERAL if len(watched) > 1 else _KEYS
        lines = [*lines[: height - 1], *[Text()] * (height - 1 - len(lines)), Text(keys, _QUIET)]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def _detail(one: Watched, now: float, width: int, height: int | None) -> list[Text]:
    head = layer.title(one, now, width)
    if not one.samples:
        waiting = [] if one.moves else [Text("  no sample yet: one is written every second", _QUIET), Text()]
        return [
            *head,
            Text(),
            *waiting,
            *layer.history(one, now, width, _MOST_HISTORY if height is None else height - 4),
        ]
    samples = list(one.samples)
    rest = [layer.variants(samples[-1])]
    if samples[-1].guards:
        rest.append(layer.guards(samples[-1], width))
    figures = layer.figures(samples, width)
    taken = len(head) + len(figures) + sum(map(len, rest)) + len(rest) + 8
    most = 16 if height is None else max(height - taken, 4)
    sections = [head, figures, layer.load(samples, width, min(most, 16)), *rest]
    lines = [line for section in sections for line in (*section, Text())]
    left = _MOST_HISTORY if height is None else height - len(lines) - 1
    return [*lines, *layer.history(one, now, width, left)] if left > 0 else lines


def _overview(watched: Sequence[Watched], chosen: int, now: float, width: int, room: int) -> list[Text]:
    """A line for each layer; of many those about the chosen one."""
    name = max(5, min(24, width - 50, max(len(_name(one)) for one in watched)))
    columns = [("", 1), ("layer", name), ("calls/s", 9), ("p50", 9), ("p99", 9), ("imbalance", 9), ("variants", 8)]
    while sum(wide + 2 for _, wide in columns) > width and len(columns) > 3:
        columns.pop()
    first = min(max(chosen - room // 2, 0), max(len(watched) - room, 0))
    lines = [Text("  ".join(_cell(head, wide, place) for place, (head, wide) in enumerate(columns)), _QUIET)]
    for number, one in enumerate(watched[first : first + room], first):
        mark, colour = layer.STATUS[one.status(now)]
        cells = [mark, _name(one), *_figures(one)]
        line = Text("  ".join(_cell(cell, wide, at) for at, (cell, (_, wide)) in enumerate(zip(cells, columns))))  # noqa: B905 - fewer columns
        line.stylize(colour, 0, 1)
        if number == chosen:
            line.stylize(_CHOSEN, 3)
        lines.append(line)
    hidden = len(watched) - (len(lines) - 1)
    if hidden:
        lines.append(Text(f"   and {hidden} more", _QUIET))
    return lines


def _name(one: Watched) -> str:
    return one.start.layer if one.start else one.path.name


def _figures(one: Watched) -> list[str]:
    if not one.samples:
        return [wording.NOTHING] * 5
    last = one.samples[-1]
    return [
        wording.count(last.calls_per_second),
        wording.milliseconds(last.p50_ms),
        wording.milliseconds(last.p99_ms),
        wording.factor(last.imbalance),
        str(len(last.active)),
    ]


def _cell(text: str, width: int, place: int) -> str:
    cut = text if len(text) <= width else text[: width - 1] + "…"
    return cut.ljust(width) if place < 2 else cut.rjust(width)
