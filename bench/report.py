"""`python -m bench.report FILES`: every table of docs/performance.md as Markdown, from the files that `bench` wrote."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.cell import Cell
from bench.formats import FORMATS
from bench.shapes import SHAPES
from bench.targets import verdict

SECTIONS = {
    "inference": "Inference",
    "quantised": "Quantised experts",
    "training": "Training: forward and backward",
    "skew": "Skew",
    "sizes": "Odd sizes",
    "sweep": "One to 64 tokens",
    "threads": "Threads",
}
SHOWN_OF_SWEEP = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
BEGIN, END = "<!-- results", "<!-- end of results"
FASTER_AT = 16  # tokens up to which a quantised format is compared with bf16: where weights are what is waited for


@dataclass(frozen=True)
class Result:
    """One file."""

    section: str
    shape: str
    format: str
    cells: list[Cell]
    skipped: dict[str, str]


def ms(seconds: float) -> str:
    """Milliseconds, three digits."""
    return f"{seconds * 1e3:.3g}" if seconds < 1 else f"{seconds * 1e3:.0f}"


def markdown(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (heading, ["---"] * len(heading), *rows)]
    return "\n".join(lines)


def _over(cell: Cell, route: str | None) -> str:
    """A route's milliseconds and, in brackets, its multiple of its limit."""
    if route is None or route not in cell.timings:
        return "–"
    seconds = cell.timings[route].seconds
    busy = "*" if cell.busy else ""
    return f"{ms(seconds)} ({seconds / cell.limit_of(route):.2f}){busy}"


def _peer(cell: Cell) -> str:
    peer = cell.best_peer
    return f"{_over(cell, peer)} {peer}" if peer else "–"


def _to_peer(cell: Cell) -> str:
    ours, peer = cell.fastest, cell.best_peer
    return f"{cell.timings[ours].seconds / cell.timings[peer].seconds:.2f}" if ours and peer else "–"


def _verdicts(cell: Cell) -> str:
    found = {name: verdict(cell, name) for name in cell.names("ours")}
    return "; ".join(found.values()) if len(found) > 1 else next(iter(found.values()), "–")


def _faster_than_bf16(cell: Cell) -> str:
    plain, ours = cell.timings.get("moec_bf16"), cell.fastest
    if plain is None or ours is None or cell.tokens > FASTER_AT:
        return ""
    return f"{plain.seconds / cell.timings[ours].seconds:.1f}×"


def _error(cell: Cell, route: str | None) -> str:
    if route is None:
        return "–"
    timing = cell.timings[route]
    return f"{max([timing.error, *timing.gradient_errors.values()]):.0e}"


def _label(cell: Cell) -> str:
    return _title(cell.shape) + ("" if cell.routing == "uniform" else f", {cell.routing}")


def matrix(results: Sequence[Result]) -> str:
    """Layers down, tokens across: each way to use moec, the best peer, moec ÷ peer, errors, the targets."""
    cells = [cell for result in results for cell in result.cells]
    tokens = sorted({cell.tokens for cell in cells})
    rows = []
    for name in dict.fromkeys(map(_label, cells)):
        mine = {cell.tokens: cell for cell in cells if _label(cell) == name}

        ours = list(dict.fromkeys(route for cell in mine.values() for route in cell.names("ours")))
        shows: list[tuple[str, Callable[[Cell], str]]] = [(route, partial(_over, route=route)) for route in ours]
        shows += [("best peer", _peer), ("moec ÷ peer", _to_peer)]
        if any("moec_bf16" in cell.timings for cell in mine.values()):
            shows.append(("faster than bf16", _faster_than_bf16))
        shows += [(f"error, {route}", partial(_error, route=route)) for route in ours]
        shows += [("error, peer", lambda cell: _error(cell, cell.best_peer)), ("targets", _verdicts)]
        for place, (what, show) in enumerate(shows):
            cells_shown = [show(mine[t]) if t in mine else "" for t in tokens]
            rows.append(["" if place else name, what, *cells_shown])
    return markdown(["layer", "", *(f"T = {t}" for t in tokens)], rows)


def sweep(results: Sequence[Result]) -> str:
    """Time a token, and the largest step between neighbouring numbers of tokens."""
    parts = []
    for result in results:
        each = {cell.tokens: cell.timings["moec"].seconds / cell.tokens for cell in result.cells}
        shown = [cell for cell in result.cells if cell.tokens in SHOWN_OF_SWEEP]
        rows = [
            ["µs a token", *(f"{each[cell.tokens] * 1e6:.0f}" for cell in shown)],
            ["× limit", *(f"{cell.timings['moec'].seconds / cell.limit_seconds():.2f}" for cell in shown)],
        ]
        steps = {t: max(each[t] / each[t + 1], each[t + 1] / each[t]) for t in each if t + 1 in each}
        worst = max(steps, key=lambda t: steps[t])
        title = f"{SHAPES[result.shape].title}, {result.format}"
        parts.append(markdown([title, *(f"T = {cell.tokens}" for cell in shown)], rows))
        parts.append(f"Largest step between neighbours: {steps[worst]:.2f} a token, from {worst} to {worst + 1}.")
    return "\n\n".join(parts)


def threads(results: Sequence[Result]) -> str:
    """One thread beside all of them."""
    tokens = [cell.tokens for cell in results[0].cells]
    rows = []
    for result in results:
        one = [cell.timings["moec_1_thread"].seconds for cell in result.cells]
        more = [cell.timings["moec"].seconds for cell in result.cells]
        rows += [
            [f"{SHAPES[result.shape].title}, {result.format}", "1 thread", *map(ms, one)],
            ["", f"{result.cells[0].threads} threads", *map(ms, more)],
            ["", "speed-up", *(f"{a / b:.2f}" for a, b in zip(one, more, strict=True))],
        ]
    return markdown(["layer", "", *(f"T = {t}" for t in tokens)], rows)


def costs(data: dict[str, Any]) -> str:
    """Compile time, load time, memory, and a call's overhead."""
    tokens = [t for t in data["layers"][0]["workspace"] if int(t) >= 128]
    rows = [
        [
            f"{SHAPES[layer['shape']].title}, {layer['dtype']}",
            f"{layer['compile_seconds']:.1f}",
            f"{layer['load_seconds'] * 1e3:.0f}",
            f"{layer['pack_seconds']:.1f}",
            f"{layer['artifact_bytes'] / 1024:.0f}",
            f"{layer['packed_bytes'] / layer['weight_bytes']:.2f}",
            ", ".join(f"{layer['workspace'][t]:.1f}" for t in tokens),
        ]
        for layer in data["layers"]
    ]
    memory = f"working memory ÷ permuted rows, T = {', '.join(tokens)}"
    table = markdown(["layer", "compile s", "load ms", "pack s", "KiB", "packed ÷ ordinary weights", memory], rows)
    calls = ", ".join(f"{name} {seconds * 1e6:.1f} µs" for name, seconds in data["call_seconds"].items())
    return f"{table}\n\nA call with one token of a tiny layer: {calls}."


def _title(shape: str) -> str:
    return SHAPES[shape].title


def section(name: str, results: Sequence[Result]) -> str:
    """The tables of a section, one a format where cells are compared with peers."""
    if name == "sweep":
        return sweep(results)
    if name == "threads":
        return threads(results)
    parts = []
    for format in FORMATS.values():
        mine = [result for result in results if result.format == format.name]
        if mine:
            parts.append(f"**{format.declared}**\n\n{matrix(mine)}")
    return "\n\n".join(parts)


def machine_lines(data: dict[str, Any]) -> str:
    limits, found = data["limits"], data["machine"]
    by = limits["measured_by"]
    peaks = ", ".join(f"{a} {limits[f'{a}_flop_per_s'] / 1e9:.0f} GFLOP/s ({by[a]})" for a in ("f32", "bf16", "int8"))
    versions = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    return (
        f"{found['processor']}, {found['cores']} cores, {data['threads']} threads; {versions}.\n"
        f"Limits at their best: {peaks}; memory {limits['dram_bytes_per_s'] / 1e9:.0f} GB/s."
    )


def skipped_lines(results: Sequence[Result]) -> str:
    """Which routes were left out anywhere, and why, each reason once."""
    reasons: dict[str, None] = {}
    for result in results:
        for route, why in result.skipped.items():
            reasons[f"- {route}: {why}"] = None
    return "\n".join(reasons)


def summary(results: Sequence[Result]) -> str:
    """How many cells meet their targets, and which do not."""
    judged = [
        (
            f"{result.section}, {_title(cell.shape)}, {cell.format}, {cell.routing}, T = {cell.tokens}, {route}",
            cell,
            route,
        )
        for result in results
        if result.section in ("inference", "quantised", "training", "skew", "sizes")
        for cell in result.cells
        for route in cell.names("ours")
    ]
    missed = [
        f"- {text}: {verdict(cell, route)} ({cell.timings[route].seconds / cell.limit_of(route):.2f} × the limit"
        + (f", {_to_peer(cell)} × {cell.best_peer})" if cell.best_peer and route == cell.fastest else ")")
        for text, cell, route in judged
        if verdict(cell, route) != "met"
    ]
    met = f"{len(judged) - len(missed)} of {len(judged)} rows meet their targets."
    return "\n".join([f"{met} The others:\n", *missed] if missed else [met])


def render(files: Sequence[Path]) -> str:
    """All of the report."""
    results, extra, head = [], "", ""
    for path in files:
        data = json.loads(path.read_text())
        if "layers" in data:
            extra = costs(data)
            continue
        group = data["group"]
        cells = [Cell.from_json(cell) for cell in data["cells"]]
        results.append(Result(group["section"], group["shape"], group["format"], cells, data["skipped"]))
        head = head or machine_lines(data)
    order = list(SHAPES)
    results.sort(key=lambda result: order.index(result.shape))
    parts = [head] if head else []
    for name, title in SECTIONS.items():
        mine = [result for result in results if result.section == name]
        if mine:
            parts.append(f"### {title}\n\n{section(name, mine)}")
    if extra:
        parts.append(f"### Call overhead, compile time, memory\n\n{extra}")
    if results:
        parts.append(f"### Targets\n\n{summary(results)}")
        if skipped := skipped_lines(results):
            parts.append(f"### Routes left out\n\n{skipped}")
    return "\n\n".join(parts) + "\n"


def insert(page: str, text: str) -> str:
    """`page` with `text` between its marks. ValueError without marks."""
    begin, end = page.find(BEGIN), page.find(END)
    if not 0 <= begin < end:
        raise ValueError(f"no lines {BEGIN} … and {END} in this order")
    begin = page.index("\n", begin) + 1
    return f"{page[:begin]}\n{text}\n{page[end:]}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--into", type=Path, metavar="PAGE", help="put the tables between the marks of this page")
    options = parser.parse_args()
    text = render(options.files)
    if options.into:
        options.into.write_text(insert(options.into.read_text(), text))
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
