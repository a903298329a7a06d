"""The tables of the page: variants, everything that happened, experts, the curves in figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from moec.cli import wording
from moec.cli.page.charts import clock, coarse, mark_events
from moec.cli.page.scales import local
from moec.cli.page.timeline import Timeline, Variant
from moec.journal import Decision, Evicted, Failed, Planned, Record, Rollback, Swap
from moec.markup import Child, Element, element

_ROWS = 60
"""Of the table that has the curves in figures."""


def variants(timeline: Timeline) -> Element | None:
    """What became of each variant, and what it gained."""
    if not timeline.variants:
        return None
    heads = ("variant", "compiled", "on recorded rows", "gain there", "on real calls", "outcome")
    rows = [_variant(variant, timeline.stopped) for variant in timeline.variants.values()]
    return _table("Variants", heads, rows, {3, 4})


def events(timeline: Timeline) -> Element:
    """Decisions and why, and all that followed from them, the latest first."""
    marked = {number for number, _ in mark_events(timeline)}
    rows = []
    for number, event in reversed(list(enumerate(timeline.events))):
        words = wording.told(event)
        when = element("time", moment(event.time), datetime=local(event.time).isoformat(timespec="seconds"))
        row = _cells("td", (when, words.kind, words.about, words.text, _weighed(event)), ())
        row.set("class", words.tone.value)
        if number in marked:
            row.set("id", f"event-{number}")
            row.set("tabindex", "-1")
        rows.append(row)
    about = "layer" if timeline.moves else "variant"
    return _whole("Decisions and what followed", ("time", "event", about, "what and why", "weighed"), rows)


def experts(timeline: Timeline) -> Element | None:
    """The load of each expert over the whole time."""
    loads = [one.load for one in timeline.bins.bins]
    count = max((len(load) for load in loads if load is not None), default=0)
    chosen = [one.chosen for one in timeline.bins.bins if len(one.chosen) == count]
    known = [load for load in loads if load is not None and len(load) == count]
    total = sum(map(sum, chosen))
    if not total:
        return None
    rows = []
    for number in range(count):
        share = sum(one[number] for one in chosen) / total
        peak, low = max(load[number] for load in known), min(load[number] for load in known)
        shares = (wording.percent(share), wording.factor(share * count))
        rows.append((str(number), *shares, wording.factor(low * count), wording.factor(peak * count)))
    heads = ("expert", "share of all tokens' choices", "of the mean", "least", "most")
    return _table("Experts", heads, rows, {0, 1, 2, 3, 4})


def figures(timeline: Timeline) -> Element | None:
    """The curves as a table, in at most 60 spans."""
    bins = timeline.bins
    rows = []
    for first, end, whole in coarse(bins.bins, _ROWS):
        load = whole.load
        hottest = "" if load is None else f"{load.index(max(load))} ({wording.factor(max(load) * len(load))})"
        rows.append(
            (
                f"{clock(bins.begin + first * bins.span)} – {clock(bins.begin + end * bins.span)}",
                wording.figure(whole.calls_per_second),
                wording.figure(whole.tokens_per_call),
                wording.milliseconds(whole.p50_ms),
                wording.milliseconds(whole.p99_ms),
                wording.factor(whole.imbalance),
                hottest or wording.NOTHING,
                wording.size_of(whole.memory),
                ", ".join(sorted(whole.active)) or wording.NOTHING,
            )
        )
    heads = ("time", "calls/s", "tokens a call", "p50", "p99", "imbalance", "hottest expert", "memory", "variants")
    return _table("The curves in figures", heads, rows, {1, 2, 3, 4, 5, 6, 7}) if rows else None


def moment(time: float) -> str:
    return local(time).strftime("%Y-%m-%d %H:%M:%S")


def _variant(variant: Variant, ended: bool) -> tuple[str, ...]:
    compiled, validated = variant.compiled, variant.validated
    checked = ""
    if validated is not None:
        checked = {True: "the same bits", False: f"error {wording.figure(validated.error)}", None: ""}[
            validated.identical
        ]
    return (
        variant.name,
        wording.told(compiled).text if compiled else "",
        checked,
        wording.factor(validated.gain) if validated else "",
        wording.factor(_gain(variant.outcome)),
        _outcome(variant.outcome, ended),
    )


def _gain(record: Record | None) -> float | None:
    """How many times as fast it was on real calls."""
    return record.gain if isinstance(record, Decision | Rollback) else None


def _outcome(record: Record | None, ended: bool) -> str:
    match record:
        case Decision(what="keep"):
            return f"kept: {record.why}"
        case Decision(what="reject"):
            return f"not used: {record.why}"
        case Decision() | Swap() if ended:
            return "not decided before the adaptation ended"
        case Decision():
            return "being compiled"
        case Swap():
            return "on trial"
        case Rollback():
            return f"taken back: {record.why}"
        case Failed():
            return f"failed: {record.why}"
        case Evicted():
            return f"taken out: {record.why}"
        case _:
            return ""


def _weighed(event: Record) -> str:
    """The figures behind a decision."""
    if isinstance(event, Planned):
        return _planned(event)
    if not isinstance(event, Decision):
        return ""
    said = (
        "" if event.predicted_gain is None else f"gain {wording.factor(event.predicted_gain)}",
        "" if event.expected_calls is None else f"{wording.count(event.expected_calls)} calls",
        "" if event.compile_seconds is None else f"compiling {wording.seconds(event.compile_seconds)}",
        f"because {event.guard}" if event.guard else "",
    )
    return ", ".join(filter(None, said))


def _planned(event: Planned) -> str:
    said = (
        f"imbalance {wording.factor(event.before)}, then {wording.factor(event.after)}",
        "" if event.copies is None else f"{event.copies:,} copies",
        "" if event.saved is None else f"saves {wording.seconds(event.saved)}",
        "" if event.cost is None else f"takes {wording.seconds(event.cost)}",
    )
    return ", ".join(filter(None, said))


def _table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: set[int]) -> Element:
    return _whole(caption, heads, [_cells("td", row, numbers) for row in rows], numbers)


def _whole(caption: str, heads: Sequence[str], rows: Sequence[Element], numbers: Iterable[int] = ()) -> Element:
    head = _cells("th", heads, numbers)
    for cell in head:
        cell.set("scope", "col")
    table = element(
        "table", element("caption", caption, class_="hidden"), element("thead", head), element("tbody", *rows)
    )
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _cells(tag: str, cells: Sequence[Child], numbers: Iterable[int]) -> Element:
    right = set(numbers)
    made = (element(tag, cell, class_="number" if place in right else None) for place, cell in enumerate(cells))
    return element("tr", *made)
