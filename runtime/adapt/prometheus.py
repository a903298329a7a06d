"""Statistics in the text form that Prometheus scrapes (exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from moec.runtime.adapt.statistics import Snapshot

Labels = Mapping[str, str]


def exposition(snapshot: Snapshot, labels: Labels) -> str:
    """All figures of a snapshot.  `labels` are on every line, such as the layer's name."""
    return "".join(_lines(snapshot, dict(labels)))


def _lines(snapshot: Snapshot, labels: Labels) -> Iterable[str]:
    yield from _single("moec_tokens_total", "counter", "Tokens of all calls.", snapshot.total_tokens, labels)
    yield from _head("moec_expert_slots_total", "counter", "Slots that chose an expert, dropped ones too.")
    for expert, count in enumerate(snapshot.chosen):
        yield _line("moec_expert_slots_total", {**labels, "expert": str(expert)}, int(count))
    yield from _single(
        "moec_dropped_slots_total", "counter", "Slots dropped by the capacity.", snapshot.dropped, labels
    )
    yield from _single(
        "moec_uncounted_calls_total", "counter", "Calls left out because too many ran.", snapshot.uncounted, labels
    )
    yield from _histogram(snapshot, labels)
    for name, text in (
        ("imbalance", "Largest expert's load over the mean, of recent calls."),
        ("share", "Largest expert's share of recent slots."),
        ("empty", "Share of the experts that recent calls have not chosen."),
        ("overflow", "Share of recent slots that the capacity dropped."),
        ("tokens", "Mean tokens of recent calls."),
    ):
        yield from _single(f"moec_recent_{name}", "gauge", text, snapshot.value(name), labels)


def _histogram(snapshot: Snapshot, labels: Labels) -> Iterable[str]:
    name = "moec_call_tokens"
    yield from _head(name, "histogram", "Tokens of a call.")
    below = 0
    top = max(snapshot.histogram, default=0)
    bound = 0
    while bound <= top:
        below += snapshot.histogram.get(bound, 0)
        # The bucket of the power p holds calls of p to 2p - 1 tokens.
        yield _line(f"{name}_bucket", {**labels, "le": str(2 * bound - 1 if bound else 0)}, below)
        bound = 2 * bound or 1
    yield _line(f"{name}_bucket", {**labels, "le": "+Inf"}, snapshot.calls)
    yield _line(f"{name}_sum", labels, snapshot.total_tokens)
    yield _line(f"{name}_count", labels, snapshot.calls)


def _single(name: str, kind: str, text: str, value: float, labels: Labels) -> Iterable[str]:
    yield from _head(name, kind, text)
    yield _line(name, labels, value)


def _head(name: str, kind: str, text: str) -> Iterable[str]:
    yield f"# HELP {name} {text}\n"
    yield f"# TYPE {name} {kind}\n"


def _line(name: str, labels: Labels, value: float) -> str:
    shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{shown}}} {value!r}\n" if shown else f"{name} {value!r}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
