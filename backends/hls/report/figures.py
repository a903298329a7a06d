"""The figures of the page: where time goes, the roofline, how full the board is."""

from __future__ import annotations

from collections.abc import Mapping
from math import log, log2
from typing import Any

from moec.fixed.design import Design
from moec.markup import Element, element

WIDTH, HEIGHT = 860, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 20, 44

PARTS = (
    ("experts", "experts", "c0"),
    ("route", "router", "c1"),
    ("rows", "rows of tokens come in", "c2"),
    ("result", "results go out", "c3"),
    ("table", "the activation's table", "c4"),
)
"""Parts of a call: name in the estimate, what it says, its colour."""

BLOCKS = (("dsp", "DSP blocks"), ("bram", "block RAMs"), ("uram", "UltraRAMs"), ("lut", "LUTs"))


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-4 else f"{seconds * 1e6:.3g} µs"


def time_bar(call: Mapping[str, Any]) -> Element:
    """A call's cycles, one part behind the other."""
    cycles, total = call["cycles"], call["cycles"]["total"]
    bar, keys = element("div", class_="stack"), element("ul", class_="keys")
    for name, said, colour in PARTS:
        share = cycles[name] / total
        bar.append(element("i", class_=colour, style=f"flex: {share:.5f} 0 0", title=f"{said}: {share:.1%}"))
        keys.append(element("li", f"{said}: {cycles[name]:,} cycles, {share:.1%}", class_=colour))
    return element("div", bar, keys)


def roofline(design: Design, found: Mapping[str, Any]) -> Element:
    """What a call's experts take with arrays of each size: the array's own time, and that of the weight ports."""
    call, roof = found["call"], found["roofline"]
    clock, chosen = design.board.clock, roof["multipliers"]
    busy = call["busy"] * chosen / clock  # seconds with one multiplier
    loading = call["loading"] / clock
    limit = found["kernel"]["room"]["dsp"] if design.layer.weights.value != "ternary" else 0
    low, high = 4.0, max(16384.0, roof["balance"] * 2, chosen * 2.0)
    ends = [busy / low, busy / high, loading, call["seconds"]]
    bottom, top = min(ends) / 1.5, max(ends) * 1.5

    def across(multipliers: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (log2(multipliers) - log2(low)) / (log2(high) - log2(low))

    def up(seconds: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (log(seconds) - log(bottom)) / (log(top) - log(bottom)))

    def text(x: float, y: float, said: str, anchor: str = "start", kind: str | None = None) -> Element:
        return element("text", said, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=kind)

    def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Element:
        return element("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=kind)

    floor = HEIGHT - BOTTOM
    drawn = element("svg", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img")
    drawn.append(element("title", "Time of a call's experts over the number of multipliers"))
    if 0 < limit < high:
        drawn.append(
            element(
                "rect",
                x=f"{across(limit):.1f}",
                y=TOP,
                width=f"{WIDTH - RIGHT - across(limit):.1f}",
                height=floor - TOP,
                class_="beyond",
            )
        )
        drawn.append(text(WIDTH - RIGHT - 6, TOP + 16, "more than the board holds", "end"))
    power = 2
    while 2**power <= high:
        x = across(2**power)
        drawn.append(line(x, TOP, x, floor, "grid"))
        if power % 2 == 0:
            drawn.append(text(x, floor + 18, f"{2**power:,}", "middle"))
        power += 1
    for tick in (decade * factor for decade in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0) for factor in (1, 3)):
        if bottom < tick < top:
            drawn.append(line(LEFT, up(tick), WIDTH - RIGHT, up(tick), "grid"))
            drawn.append(text(LEFT - 8, up(tick) + 4, milliseconds(tick), "end"))
    drawn.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "multipliers", "middle"))
    drawn.append(line(across(low), up(busy / low), across(high), up(busy / high), "array"))
    drawn.append(line(across(low), up(loading), across(high), up(loading), "memory"))
    drawn.append(text(across(low) + 10, up(busy / low) - 2, "the array computes"))
    drawn.append(text(across(low) + 10, up(loading) - 7, "weights come in"))
    if low <= roof["balance"] <= high:
        x = across(roof["balance"])
        drawn.append(line(x, TOP, x, floor, "mark"))
        drawn.append(text(x - 6, TOP + 16, f"PE* = {roof['balance']:,.0f}", "end", "strong"))
    here = max(busy / chosen, loading)
    drawn.append(element("circle", cx=f"{across(chosen):.1f}", cy=f"{up(here):.1f}", r=6, class_="chosen"))
    label = f"{design.inputs} × {design.outputs}"
    drawn.append(text(across(chosen), up(here) - 12, label, "middle", "strong"))
    return element("figure", drawn)


def gauges(design: Design, found: Mapping[str, Any]) -> Element:
    """How much of the board the kernel takes; the line is the most that it may."""
    taken, most = found["kernel"]["total"], found["kernel"]["room"]
    made = element("div", class_="use")
    for name, said in BLOCKS:
        have = getattr(design.board, name)
        made.append(element("span", said))
        gauge = element("div", class_="gauge")
        if have:
            gauge.append(element("i", style=f"width: {min(1.0, taken[name] / have):.2%}"))
            gauge.append(element("b", style=f"left: {most[name] / have:.2%}"))
        made.append(gauge)
        share = f"{taken[name]:,g} of {have:,} ({taken[name] / have:.0%})" if have else "the board has none"
        made.append(element("span", share, class_="quiet"))
    return made
