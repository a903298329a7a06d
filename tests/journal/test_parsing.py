"""A line becomes a record, whatever else it says and whoever wrote it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.journal import Decision, Guard, Moved, Other, Planned, Run, Sample, Start, Stop, Swap, Tables, Travelled
from moec.journal.parsing import parse
from tests.journal import drifting


def line(**fields: Any) -> bytes:
    return json.dumps({"time": 1.0, **fields}).encode()


def test_what_an_adaptation_writes_is_read() -> None:
    read = [parse(json.dumps(record).encode()) for record in drifting.records(250)]
    start, *others = read
    assert isinstance(start, Start)
    assert (start.layer, start.pid, start.experts, start.slots) == ("OLMoE", 4242, 64, 8)
    assert (start.layout, start.triggers) == ("Serve", ("imbalance > 1.3 and tokens >= 64",))
    samples = [record for record in others if isinstance(record, Sample)]
    assert len(samples) == 250
    last = samples[-1]
    assert len(last.load) == 64
    assert sum(last.load) == pytest.approx(1, abs=1e-3)
    assert last.active == ("base", "tokens_1_16")
    assert last.runs[0] == Run(1, 16, "tokens_1_16")
    assert last.runs[-1] == Run(4097, None, "base")
    (guard,) = last.guards
    assert isinstance(guard, Guard)
    assert guard.unit == "calls"
    assert set(guard.values) == {"imbalance", "tokens"}
    assert None not in read
    assert not [record for record in read if isinstance(record, Other)]


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"{",
        b"null",
        b"[1]",
        b'"text"',
        b"\0\0\0",
        b"\xff\xfe",
        b'{"event": "stop"}',
        b'{"time": 1.0}',
        b'{"event": "stop", "time": true}',
        b'{"event": "stop", "time": 1e400}',
        b'{"event": "stop", "time": -1}',
        b'{"event": "stop", "time": NaN}',
        b'{"event": "stop", "time": 1e15}',
        b'{"event": "stop", "time": ' + b"9" * 5000 + b"}",
        b'{"event": 7, "time": 1.0}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_record(bad: bytes) -> None:
    assert parse(bad) is None


def test_what_is_not_as_it_should_be_is_not_said() -> None:
    wrong = {"calls": -3, "load": [0.5, "x", None, 7, True, -1], "imbalance": "high", "latency_ms": {"p50": None}}
    read = parse(line(event="sample", **wrong, histogram={"16": 3, "x": 1, "²": 1, "8": -1}, guards=[1, {}], memory=[]))
    assert isinstance(read, Sample)
    assert (read.calls, read.imbalance, read.p50_ms, read.memory) == (0, None, None, None)
    assert read.load == (0.5, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert read.histogram == {16: 3}
    assert read.guards == (Guard("", "", {}, 0.0, 0.0, ""),)
    assert parse(line(event="moved", **{"in": [1, -1, "x", True], "out": 3})) == Moved(1.0, (1,), (), None, None)


def test_an_event_of_a_newer_moec() -> None:
    assert parse(line(event="teleported", to="elsewhere")) == Other(1.0, "teleported")
    assert parse(line(event="stop", reason="new")) == Stop(1.0)


def test_a_swap_may_come_from_one_or_several() -> None:
    for written, read in (("base", ("base",)), (["base", "a"], ("base", "a")), (None, ())):
        swap = parse(line(event="swap", **{"from": written}, to="b", variants=["base", "b"]))
        assert isinstance(swap, Swap)
        assert swap.before == read


def test_text_cannot_command_a_terminal() -> None:
    read = parse(line(event="decision", what="keep", why="a\x1b[2J\x9b31m\nb\u202ec" + "d" * 5000))
    assert isinstance(read, Decision)
    assert read.why.isprintable()
    assert read.why.startswith("a�[2J�31m b�c")
    assert len(read.why) == 1000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
EVENTS = ("start", "sample", "decision", "compiled", "failed", "validated", "swap", "rollback", "evicted", "moved", "x")
FIELDS = (
    *("layer", "pid", "experts", "policy", "triggers", "calls", "load", "histogram", "latency_ms", "active", "runs"),
    *("guards", "what", "why", "candidate", "identical", "from", "to", "variants", "in", "out", "seconds", "bytes"),
)


@given(st.sampled_from(EVENTS), st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_any_fields_make_a_record(event: str, fields: dict[str, Any]) -> None:
    record = parse(json.dumps({**fields, "event": event, "time": 1.0}).encode())
    assert record is not None
    assert record.time == 1.0


def test_what_moves_of_experts_write_is_read() -> None:
    start = parse(line(event="start", layers=["A", "B"], ranks=[0, 1, 2], host="here", pid=7))
    assert isinstance(start, Start)
    assert (start.layer, start.ranks, start.pid) == ("A, B", (0, 1, 2), 7)
    plan = parse(line(event="plan", layer="A", what="move", why="w", before=2, after=1.5, copies=3, saved=4, cost=0.5))
    assert plan == Planned(1.0, "A", "move", "w", 2.0, 1.5, 3, 4.0, 0.5)
    assert parse(line(event="plan", copies=-1, before="x")) == Planned(1.0, "", "", "", None, None, None, None, None)
    travelled = parse(line(event="travelled", why="", experts=3, sent=10, received=20, staged=0, seconds=0.5))
    assert travelled == Travelled(1.0, 3, 10, 20, 0, 0.5)
    assert parse(line(event="tables", version=2, step=40, seconds=1e-3)) == Tables(1.0, 2, 40, 1e-3)
