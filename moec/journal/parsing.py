"""From a line to a record.  Nothing in a line is trusted: what is not as it should be counts as not said."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from moec.journal.records import (
    Compiled,
    Decision,
    Evicted,
    Failed,
    Guard,
    Moved,
    Other,
    Planned,
    Record,
    Rollback,
    Run,
    Sample,
    Start,
    Stop,
    Swap,
    Tables,
    Travelled,
    Validated,
)

LATEST = 253_402_214_400.0
"""The last day of the year 9999, seconds since 1970: what calendars can show."""
MOST_EXPERTS = 2**14
"""Whose load is read."""
_LARGEST = 2**53
_LONGEST_TEXT = 1000
_LONGEST_NAME = 200
_MOST_NAMES = 256
_MOST_GUARDS = 64


def parse(line: bytes) -> Record | None:
    """The record of a line; None where it is none."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    time = _number(data, "time")
    event = _name(data, "event")
    if time is None or not 0 <= time < LATEST or not event:
        return None
    make = _RECORDS.get(event)
    return make(data, time) if make is not None else Other(time, event)


def _start(data: Mapping[str, Any], time: float) -> Record:
    policy = _mapping(data, "policy")
    triggers = (_text(one, "text") for one in _mappings(policy, "triggers", _MOST_GUARDS))
    return Start(
        time,
        _name(data, "layer") or ", ".join(_names(data, "layers"))[:_LONGEST_NAME] or "layer",
        _name(data, "artifact"),
        _name(data, "host") or None,
        _count(data, "pid"),
        _count(data, "experts") or 0,
        _count(data, "slots") or 0,
        _name(data, "variant"),
        _name(policy, "layout"),
        tuple(filter(None, triggers)),
        _numbers(data, "ranks"),
    )


def _sample(data: Mapping[str, Any], time: float) -> Record:
    latency = _mapping(data, "latency_ms")
    load = data.get("load")
    return Sample(
        time,
        _count(data, "calls") or 0,
        _count(data, "tokens") or 0,
        _positive(data, "calls_per_second") or 0.0,
        _positive(data, "tokens_per_call") or 0.0,
        tuple(map(_share, load)) if isinstance(load, list) and len(load) <= MOST_EXPERTS else (),
        _positive(data, "imbalance"),
        _positive(data, "share"),
        _positive(data, "empty"),
        _positive(data, "overflow"),
        {
            int(size): count
            for size in _mapping(data, "histogram")
            if size.isascii() and size.isdecimal() and len(size) < 16
            if (count := _count(_mapping(data, "histogram"), size))
        },
        _positive(latency, "p50"),
        _positive(latency, "p99"),
        _count(data, "memory"),
        _names(data, "active"),
        tuple(filter(None, map(_run, _mappings(data, "runs", _MOST_NAMES)))),
        tuple(_guard(one) for one in _mappings(data, "guards", _MOST_GUARDS)),
    )


def _run(data: Mapping[str, Any]) -> Run | None:
    tokens = data.get("tokens")
    if not isinstance(tokens, list) or len(tokens) != 2:
        return None
    ends = {"first": tokens[0], "last": tokens[1]}
    return Run(_count(ends, "first") or 0, _count(ends, "last"), _name(data, "variant"), _name(data, "trial") or None)


def _guard(data: Mapping[str, Any]) -> Guard:
    values = _mapping(data, "value")
    numbers = {_clean(name, _LONGEST_NAME): _number(values, name) for name in list(values)[:_MOST_GUARDS]}
    return Guard(
        _text(data, "text"),
        _name(data, "state"),
        {name: number for name, number in numbers.items() if number is not None},
        _positive(data, "held") or 0.0,
        _positive(data, "window") or 0.0,
        _name(data, "unit"),
    )


def _decision(data: Mapping[str, Any], time: float) -> Record:
    return Decision(
        time,
        _name(data, "what"),
        _text(data, "why"),
        _name(data, "candidate") or None,
        _positive(data, "gain"),
        _text(data, "guard") or None,
        _positive(data, "predicted_gain"),
        _positive(data, "expected_calls"),
        _positive(data, "compile_seconds"),
    )


def _validated(data: Mapping[str, Any], time: float) -> Record:
    identical = data.get("identical")
    return Validated(
        time,
        _name(data, "candidate"),
        identical if isinstance(identical, bool) else None,
        _positive(data, "error"),
        _positive(data, "gain"),
        _positive(data, "old_ms"),
        _positive(data, "new_ms"),
    )


def _swap(data: Mapping[str, Any], time: float) -> Record:
    before = (_name(data, "from"),) if isinstance(data.get("from"), str) else _names(data, "from")
    return Swap(time, before, _name(data, "to"), _names(data, "variants"), _positive(data, "seconds"))


def _moved(data: Mapping[str, Any], time: float) -> Record:
    return Moved(time, _numbers(data, "in"), _numbers(data, "out"), _count(data, "bytes"), _positive(data, "seconds"))


def _planned(data: Mapping[str, Any], time: float) -> Record:
    return Planned(
        time,
        _name(data, "layer"),
        _name(data, "what"),
        _text(data, "why"),
        _positive(data, "before"),
        _positive(data, "after"),
        _count(data, "copies"),
        _positive(data, "saved"),
        _positive(data, "cost"),
    )


def _travelled(data: Mapping[str, Any], time: float) -> Record:
    experts, sent, received, staged = (_count(data, name) for name in ("experts", "sent", "received", "staged"))
    return Travelled(time, experts, sent, received, staged, _positive(data, "seconds"))


_RECORDS: Mapping[str, Callable[[Mapping[str, Any], float], Record]] = {
    "start": _start,
    "sample": _sample,
    "decision": _decision,
    "compiled": lambda d, t: Compiled(t, _name(d, "candidate"), _positive(d, "seconds"), _name(d, "from")),
    "failed": lambda d, t: Failed(t, _name(d, "candidate") or None, _text(d, "why")),
    "validated": _validated,
    "swap": _swap,
    "rollback": lambda d, t: Rollback(t, _name(d, "from"), _name(d, "to"), _text(d, "why"), _positive(d, "gain")),
    "evicted": lambda d, t: Evicted(t, _name(d, "variant"), _text(d, "why")),
    "moved": _moved,
    "plan": _planned,
    "travelled": _travelled,
    "tables": lambda d, t: Tables(t, _count(d, "version"), _count(d, "step"), _positive(d, "seconds")),
    "stop": lambda _, t: Stop(t),
}


def _clean(text: str, longest: int) -> str:
    """Without what a terminal could take for a command, in one line, and not too long."""
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return cut if cut.isprintable() else "".join(c if c.isprintable() else " " if c.isspace() else "�" for c in cut)


def _text(data: Mapping[str, Any], name: str, longest: int = _LONGEST_TEXT) -> str:
    value = data.get(name)
    return _clean(value, longest) if isinstance(value, str) else ""


def _name(data: Mapping[str, Any], name: str) -> str:
    return _text(data, name, _LONGEST_NAME)


def _names(data: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = data.get(name)
    given = value[:_MOST_NAMES] if isinstance(value, list) else []
    return tuple(_clean(one, _LONGEST_NAME) for one in given if isinstance(one, str))


def _number(data: Mapping[str, Any], name: str) -> float | None:
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= _LARGEST and isfinite(value) else None


def _positive(data: Mapping[str, Any], name: str) -> float | None:
    value = _number(data, name)
    return value if value is not None and value >= 0 else None


def _count(data: Mapping[str, Any], name: str) -> int | None:
    value = _positive(data, name)
    return None if value is None else int(value)


def _numbers(data: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """Those of experts, or ranks."""
    value = data.get(name)
    given = value[:MOST_EXPERTS] if isinstance(value, list) else []
    return tuple(one for one in given if type(one) is int and 0 <= one < MOST_EXPERTS)


def _share(value: object) -> float:
    """A share of the load: 0..1."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    return float(value) if number else 0.0  # type: ignore[arg-type]


def _mapping(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def _mappings(data: Mapping[str, Any], name: str, most: int) -> list[Mapping[str, Any]]:
    value = data.get(name)
    return [one for one in value[:most] if isinstance(one, dict)] if isinstance(value, list) else []
