"""`report/index.html`: one page with everything inside; it loads nothing and runs no script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from moec.backends.hls.report.figures import gauges, milliseconds, roofline, time_bar
from moec.fixed.design import Design
from moec.fixed.spec import Expert, Layer
from moec.markup import Child, Element, document, element

POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(design: Design, found: Mapping[str, Any]) -> str:
    """The page of an estimate."""
    style = (resources.files("moec.backends.hls.report") / "page.css").read_text(encoding="utf-8")
    layer, board = design.layer, design.board
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{layer.name} on {board.name} – moec estimate"),
        element("style", style),
    )
    body = element(
        "main",
        element("h1", f"{layer.name} on {board.name}"),
        element("p", said_of(layer), class_="quiet"),
        element("p", found["says"], class_="says"),
        _facts(design, found),
        _section("Where the time of a call goes", time_bar(found["call"])),
        _section("The size of the array", element("p", _balance(found)), roofline(design, found)),
        _section("The board", element("p", _shares()), gauges(design, found)),
        _section("Memories on the chip", _buffers(found)),
        _section("Calls of fewer tokens", _calls(found)),
        _section("Other weights, other ports", element("p", _others(design)), _alternatives(design, found)),
        _section("What was decided, and why", _reasons(found)),
        _section("What was not done", _undone()),
    )
    return document(element("html", head, element("body", body), lang="en"))


def said_of(layer: Layer) -> str:
    """A layer in one line."""
    router = layer.router
    parts = [
        f"tokens of {layer.width} numbers",
        f"{layer.experts} experts, {router.slots} a token by {router.score.value}",
        expert(layer.routed),
        f"{layer.weights.value} weights",
    ]
    if layer.common is not None:
        parts.append(f"{layer.shared} shared: {expert(layer.common)}")
    if router.tasks > 1:
        parts.append(f"{router.tasks} gates, chosen by a task")
    return " · ".join(parts)


def expert(shape: Expert) -> str:
    return f"{'gated ' if shape.gated else ''}{shape.activation.value} of {shape.hidden}"


def _section(title: str, *children: Child) -> Element:
    return element("section", element("h2", title), *children)


def _facts(design: Design, found: Mapping[str, Any]) -> Element:
    call, taken = found["call"], found["kernel"]["total"]
    facts = (
        (f"a call of {design.tokens} tokens", milliseconds(call["seconds"]), "modelled, without the host"),
        ("tokens a second", f"{design.tokens / call['seconds']:,.0f}", f"at {design.board.clock / 1e6:g} MHz"),
        ("bound by", f"the {call['bound']}", f"array busy {call['busy'] / call['cycles']['total']:.0%} of the time"),
        ("multipliers", f"{design.inputs} × {design.outputs}", f"{taken['dsp']:,} DSP blocks in all"),
        ("weights come through", f"{design.ports} × {design.port_bits} bits", f"{design.order.value}-major order"),
    )
    made = element("dl", class_="facts")
    for name, value, more in facts:
        made.append(element("div", element("dt", name), element("dd", element("strong", value), element("span", more))))
    return made


def _balance(found: Mapping[str, Any]) -> str:
    roof = found["roofline"]
    return (
        f"With PE* = {roof['tokens_an_expert']:.4g} tokens an expert × {roof['bytes_a_cycle']:.4g} bytes a cycle ÷ "
        f"{roof['bytes_a_weight']:g} bytes a weight = {roof['balance']:,.0f} multipliers, reading an expert and "
        "computing it take equally long; tokens are taken to be spread evenly over the experts."
    )


def _shares() -> str:
    return (
        "Estimates of the kernel in src/, as a tool makes it that packs no two products into a DSP block. The line is "
        "the most that a design is given, so that it can be routed."
    )


def _buffers(found: Mapping[str, Any]) -> Element:
    rows = (
        (one["name"], one["memory"], f"{one['bits'] / 1024:,.1f}", _blocks(one)) for one in found["kernel"]["buffers"]
    )
    return _table(("buffer", "made of", "Kbit", "takes"), rows, numbers=(2,))


def _blocks(one: Mapping[str, Any]) -> str:
    names = (("bram", "block RAMs"), ("uram", "UltraRAMs"), ("lut", "LUTs"))
    return ", ".join(f"{one[name]:,g} {said}" for name, said in names if one[name]) or "registers"


def _calls(found: Mapping[str, Any]) -> Element:
    rows = (
        (
            f"{one['tokens']:,}",
            milliseconds(one["seconds"]),
            f"{one['tokens'] / one['seconds']:,.0f}",
            f"{one['cycles']['total']:,}",
            f"the {one['bound']}",
        )
        for one in found["calls"]
    )
    return _table(("tokens", "time", "tokens a second", "cycles", "bound by"), rows, numbers=(0, 1, 2, 3))


def _others(design: Design) -> str:
    return (
        f"The same layer on {design.board.name} with the array that suits each, for calls of {design.tokens} tokens. "
        "Other weights are another layer: what they do to its results has to be measured."
    )


def _alternatives(design: Design, found: Mapping[str, Any]) -> Element:
    this = (design.layer.weights.value, design.ports)
    rows, chosen = [], []
    for one in found["alternatives"]:
        chosen.append((one["weights"], one["ports"]) == this)
        rows.append(
            (
                one["weights"],
                str(one["ports"]),
                f"{one['inputs']} × {one['outputs']}",
                milliseconds(one["seconds"]),
                f"the {one['bound']}",
                f"{one['dsp']:,}",
                f"{one['bram']:,g}",
                f"{one['lut']:,}",
            )
        )
    heads = ("weights", "ports", "array", "time", "bound by", "DSP", "block RAM", "LUTs")
    return _table(heads, rows, numbers=(1, 2, 3, 5, 6, 7), chosen=chosen)


def _reasons(found: Mapping[str, Any]) -> Element:
    return element("ul", *(element("li", text) for text in found["decisions"]), class_="reasons")


def _undone() -> Element:
    return element(
        "ul",
        element("li", "Synthesis, placement and routing by the vendor's tools: README.md has the commands."),
        element("li", "A run on a board. The host programs in host/ are written for one and were run on none."),
        element("li", "Power. No figure here is about it."),
        class_="reasons",
    )


def _table(
    heads: Iterable[str], rows: Iterable[tuple[str, ...]], numbers: tuple[int, ...], chosen: Iterable[bool] = ()
) -> Element:
    """`numbers` are the columns that are set to the right; rows that are `chosen` stand out."""
    kinds = ["number" if at in numbers else None for at, _ in enumerate(heads)]
    head = element("tr", *(element("th", text, class_=kind) for text, kind in zip(heads, kinds, strict=True)))
    table = element("table", element("thead", head))
    body = element("tbody")
    marks = iter(chosen)
    for row in rows:
        cells = (element("td", text, class_=kind) for text, kind in zip(row, kinds, strict=True))
        body.append(element("tr", *cells, class_="this" if next(marks, False) else None))
    table.append(body)
    return element("div", table, class_="scroll")
