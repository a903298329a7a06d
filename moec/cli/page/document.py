"""The whole page."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from importlib import resources

from moec.cli import wording
from moec.cli.page import charts, tables
from moec.cli.page.heat import Heat
from moec.cli.page.scales import local
from moec.cli.page.timeline import Timeline
from moec.journal import Decision, Failed, Liveness, Reading, Rollback, Start, Tables, Travelled, liveness
from moec.markup import Element, document, element

_DIGITS = 4


def page(timeline: Timeline, reading: Reading) -> str:
    """HTML with everything inside: style, script, data, pictures; it may load nothing, by its own policy."""
    script, style = _text("page.js"), _text("page.css")
    head = element("head", element("meta", charset="utf-8"))
    head.append(element("meta", http_equiv="Content-Security-Policy", content=_policy(script)))
    head.append(element("meta", name="viewport", content="width=device-width, initial-scale=1"))
    head.append(element("meta", name="color-scheme", content="light dark"))
    layer = timeline.start.layer if timeline.start else "layer"
    head.append(element("title", f"{layer} – moec report"))
    head.append(element("style", style))
    body = element("body", element("main", *_sections(timeline, reading, layer)), _foot(reading))
    body.append(element("script", script))
    return document(element("html", head, body, lang="en"))


def _sections(timeline: Timeline, reading: Reading, layer: str) -> list[Element]:
    load, sizes = charts.load_map(timeline), charts.sizes(timeline)
    by_size = charts.size_map(timeline, sizes) if sizes else Heat((), 1.0, 1)
    sections = [element("header", element("h1", layer), element("p", _subtitle(timeline), class_="subtitle"))]
    sections.append(_facts(timeline))
    notes = _notes(timeline, reading)
    if notes:
        sections.append(element("ul", *(element("li", note) for note in notes), class_="notes"))
    if timeline.bins.bins:
        drawn = charts.figures(timeline, load, sizes, by_size)
        sections.append(_section("Over time", _moment(len(timeline.bins.bins)), drawn, _data(timeline, load)))
    elif timeline.moves:
        sections.append(_section("Over time", charts.marks_alone(timeline)))
    if not timeline.moves:
        made = tables.variants(timeline) or _nothing("No variant was compiled.")
        sections.append(_section("Variants and gains", made))
    if timeline.start is not None and timeline.start.triggers:
        items = (element("li", element("code", text)) for text in timeline.start.triggers)
        sections.append(_section("Compiling is considered when", element("ul", *items)))
    sections.append(_section("Decisions and what followed", tables.events(timeline)))
    for title, table in (
        ("Load of each expert in figures", tables.experts(timeline)),
        ("The curves in figures", tables.figures(timeline)),
    ):
        if table is not None:
            sections.append(element("details", element("summary", title), table))
    return sections


def _subtitle(timeline: Timeline) -> str:
    start = timeline.start
    if start is None:
        return "The journal does not say how it began."
    return " · ".join(
        filter(
            None,
            (
                f"{start.experts} experts, {start.slots} a token" if start.experts else "",
                f"experts may move between {len(start.ranks)} ranks" if start.ranks else "",
                start.variant,
                f"policy {start.layout}" if start.layout else "",
                f"process {start.pid}" if start.pid else "",
                f"on {start.host}" if start.host else "",
                f"artifact {start.artifact[:12]}" if start.artifact else "",
            ),
        )
    )


def _facts(timeline: Timeline) -> Element:
    """The few figures to begin with."""
    failed = sum(isinstance(event, Failed) for event in timeline.events)
    begin = timeline.bins.begin
    facts = (
        ("observed", wording.seconds(max(timeline.latest - begin, 0.0)), f"{tables.moment(begin)} {_zone(begin)}"),
        *(_moved(timeline) if timeline.moves else _tried(timeline)),
        ("failures", str(failed), "the layer ran on without them"),
        ("ended", _end(timeline), tables.moment(timeline.latest) if timeline.latest else ""),
    )
    made = element("dl", class_="facts")
    for name, value, more in facts:
        bad = name == "failures" and failed
        strong = element("strong", value, class_="bad" if bad else None)
        made.append(element("div", element("dt", name), element("dd", strong, element("span", more))))
    return made


def _tried(timeline: Timeline) -> tuple[tuple[str, str, str], ...]:
    """Of an adaptation."""
    outcomes = [variant.outcome for variant in timeline.variants.values()]
    kept = sum(isinstance(one, Decision) and one.what == "keep" for one in outcomes)
    back = sum(isinstance(event, Rollback) for event in timeline.events)
    return (
        ("calls", wording.count(timeline.calls), f"{wording.count(timeline.tokens)} tokens"),
        ("variants kept", str(kept), f"of {len(timeline.variants)} that were begun"),
        ("taken back", str(back), "measured slower on real calls"),
    )


def _moved(timeline: Timeline) -> tuple[tuple[str, str, str], ...]:
    """Of experts that move."""
    changes = sum(isinstance(event, Tables) for event in timeline.events)
    trips = [event for event in timeline.events if isinstance(event, Travelled)]
    nbytes = wording.size_of(sum((trip.sent or 0) + (trip.received or 0) for trip in trips))
    return (
        ("tables changed", str(changes), "between two steps"),
        ("copies of experts", str(sum(trip.experts or 0 for trip in trips)), "travelled, between all ranks"),
        ("over this rank's links", nbytes, "both ways"),
    )


def _end(timeline: Timeline) -> str:
    if timeline.stopped:
        return "in order"
    alive = Liveness.UNKNOWN if timeline.start is None else liveness(timeline.start)
    return {Liveness.ALIVE: "still runs", Liveness.DEAD: "process died", Liveness.UNKNOWN: "not said"}[alive]


def _notes(timeline: Timeline, reading: Reading) -> list[str]:
    """What a reader should know about the journal itself."""
    notes = []
    if timeline.earlier:
        notes.append(f"The journal has {timeline.earlier} earlier adaptations of other layers, which are left out.")
    starts = sum(isinstance(event, Start) for event in timeline.events)
    if starts > 1:
        notes.append(f"It began {starts} times in this journal.")
    if reading.damaged:
        notes.append(f"{reading.damaged:,} lines are damaged and were left out.")
    if reading.left_out:
        notes.append(f"The first {wording.size_of(reading.left_out)} were left out: the journal is too large.")
    if timeline.dropped:
        notes.append(f"{timeline.dropped:,} events before the ones shown were left out.")
    if not timeline.bins.bins and not timeline.moves:
        notes.append("There is no sample of the load in the journal.")
    return notes


def _moment(count: int) -> Element:
    """A moment to choose, with the mouse or the keyboard; the script brings it to life."""
    slider = element("input", type="range", min=0, max=count - 1, value=count - 1, step=1, id="moment")
    slider.set("aria-label", "Moment")
    reading = element("output", for_="moment", id="reading", aria_live="polite")
    return element("div", slider, reading, class_="moment", id="chooser", hidden="hidden")


def _data(timeline: Timeline, load: Heat) -> Element:
    """What the script shows of a moment."""
    bins = timeline.bins
    group = [curve for curves in charts.curves(timeline) for curve in curves]
    names = sorted({name for one in bins.bins for name in one.active}, key=lambda name: (name != "base", name))
    data = {
        "times": [charts.clock(bins.begin + place * bins.span) for place in range(len(bins.bins) + 1)],
        "curves": [[curve.name, [None if v is None else curve.text(v) for v in curve.values]] for curve in group],
        "rows": len(load.rows),
        "perRow": load.per_row,
        "top": round(load.top, _DIGITS),
        "load": base64.b64encode(b"".join(load.rows)).decode(),
        "names": names,
        "active": [[names.index(name) for name in sorted(one.active)] for one in bins.bins],
    }
    return element("div", json.dumps(data, separators=(",", ":")), hidden="hidden", id="data")


def _section(title: str, *content: Element) -> Element:
    return element("section", element("h2", title), *content)


def _nothing(text: str) -> Element:
    return element("p", text, class_="quiet")


def _foot(reading: Reading) -> Element:
    text = f"moec report of {reading.path.name}, {reading.records:,} records, made {tables.moment(time.time())}"
    return element("footer", text)


def _zone(when: float) -> str:
    offset = local(when).strftime("%z")
    return "UTC" if offset == "+0000" else f"UTC{offset[:3]}:{offset[3:5]}"


def _policy(script: str) -> str:
    """Nothing may be loaded, and no script but ours may run."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def _text(name: str) -> str:
    return resources.files("moec.cli.page").joinpath(name).read_text(encoding="utf-8")
