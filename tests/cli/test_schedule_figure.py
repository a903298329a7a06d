"""The drawing of a schedule: every step is where its times say, in a file that needs nothing else."""

from __future__ import annotations

import random
from xml.etree import ElementTree

import pytest

from moec.cli.page.schedule_figure import LEFT, RIGHT, WIDTH, Bar, Lanes, Rank, figure

SVG = "{http://www.w3.org/2000/svg}"


def lanes(seed: int, streams: int = 3) -> dict[str, list[Bar]]:
    """Steps that follow each other on every stream, some of no length."""
    chance = random.Random(seed)
    found: dict[str, list[Bar]] = {}
    for stream in range(streams):
        time = chance.random() * 1e-3
        for number in range(chance.randrange(1, 6)):
            end = time + chance.choice([0.0, 1e-6, 1e-3, 3e-2])
            does = chance.choice(["route", "dispatch", "experts", "<unheard of>"])
            found.setdefault(f"net.{stream} & co", []).append(Bar(f"{does} {number}", does, time, end))
            time = end + chance.choice([0.0, 1e-4])
    return found


def steps(root: ElementTree.Element, which: str) -> list[tuple[str, float, float, float]]:
    """Of each drawn step: what it is called, left, width and top."""
    found = []
    for group in root.iter(f"{SVG}g"):
        title, box = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        if title is not None and which in (group.get("class") or "").split():
            assert box is not None
            found.append((title.text or "", *(float(box.get(name, "nan")) for name in ("x", "width", "y"))))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_steps_lie_where_their_times_say(seed: int) -> None:
    predicted, measured = lanes(seed), lanes(seed + 100)
    root = ElementTree.fromstring(figure("A <layer>", ["a & b"], [Rank("rank 3", predicted, measured)]))
    end = max(bar.end for which in (predicted, measured) for lane in which.values() for bar in lane)
    rows: dict[str, set[float]] = {}
    for which, given in (("predicted", predicted), ("measured", measured)):
        drawn = steps(root, which)
        bars = [bar for lane in given.values() for bar in lane]
        assert len(drawn) == len(bars)
        for bar, (title, left, width, top) in zip(bars, drawn, strict=True):
            assert title.startswith(f"{bar.name}, {which}: ")
            assert left == pytest.approx(LEFT + (WIDTH - LEFT - RIGHT) * bar.begin / end, abs=0.01)
            assert width == pytest.approx(max(0.75, (WIDTH - LEFT - RIGHT) * (bar.end - bar.begin) / end), abs=0.02)
            assert left + width <= WIDTH - RIGHT + 0.76
            rows.setdefault(which, set()).add(top)
    assert rows["predicted"].isdisjoint(rows["measured"])
    height = float(root.get("height", "0"))
    assert max(max(tops) for tops in rows.values()) < height


def test_the_file_needs_nothing_else() -> None:
    text = figure("Layer", [], [Rank(f"rank {number}", lanes(number)) for number in range(3)])
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert not [one for one in root.iter() if one.tag in (f"{SVG}script", f"{SVG}image", f"{SVG}use")]
    assert "prefers-color-scheme: dark" in text
    assert "url(" not in text
    assert "measured" not in "".join(root.itertext()).replace(".measured", "")


def test_ranks_and_streams_are_named() -> None:
    only: Lanes = {"net.node": [Bar("dispatch 0", "dispatch", 0.0, 0.001)]}
    root = ElementTree.fromstring(figure("Layer", ["note"], [Rank("rank 0", {}, only), Rank("rank 7", only, {})]))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"Layer", "note", "rank 0", "rank 7", "net.node", "dispatch", "dispatch 0"} <= set(texts)


def test_nothing_to_draw() -> None:
    ElementTree.fromstring(figure("Empty", [], [Rank("rank 0", {})]))
