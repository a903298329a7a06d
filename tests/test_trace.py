"""Trace files: what is written is read, sums are right, and everything that is no trace is refused by its place."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.errors import TraceError
from moec.trace import Header, Sample, Summary, TraceWriter, read, summarise, summarise_lines

HEADER = Header("Demo", 3, 2)
HEAD = b'{"moec_trace": 1, "layer": "Demo", "experts": 3, "slots": 2}'
LINE: dict[str, Any] = {"time": 5.0, "tokens": 4, "counts": [1, 7, 0]}


def test_writes_what_it_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    with TraceWriter(path, HEADER) as writer:
        writer.write(Sample(10.0, 5, (4, 3, 2)))
        first = summarise(path)  # every sample is there at once
        writer.write(Sample(12.5, 24, (0, 0, 40), calls=3))
        writer.write(Sample(11.0, 33, (1, 0, 0), calls=4, histogram={0: 1, 1: 2, 16: 1}))
        writer.write(Sample(13.0, 0, (0, 0, 0)))
    assert first.counts == [4, 3, 2]
    summary = summarise(path)
    assert summary == Summary(HEADER, [5, 3, 42], {4: 1, 8: 3, 0: 2, 1: 2, 16: 1}, 4, 9, 62, 10.0, 13.0)


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    with TraceWriter(path, HEADER) as writer:
        writer.write(Sample(1.0, 4, (4, 3, 0)))
    whole = path.read_bytes()
    for cut in range(len(HEAD), len(whole)):
        path.write_bytes(whole[:cut])
        assert summarise(path).samples == 0
    path.write_bytes(whole)
    assert summarise(path).samples == 1


samples = st.builds(
    Sample,
    st.floats(0, 2e9),
    st.integers(0, 5000).map(lambda n: n * 3),
    st.tuples(*[st.integers(0, 0)] * 3),
    st.integers(1, 50),
)


@given(st.lists(samples, max_size=5), st.randoms())
def test_a_summary_is_a_trace_of_itself(given_samples: list[Sample], random: Any) -> None:
    summary = Summary(HEADER)
    for sample in given_samples:
        counts = tuple(random.randint(0, sample.tokens * 2 // 3) for _ in range(3))
        summary.add(Sample(sample.time, sample.tokens, counts, sample.calls))
    again = summarise_lines(summary.text().encode().split(b"\n")[:-1])
    assert (again.counts, again.histogram, again.tokens) == (summary.counts, summary.histogram, summary.tokens)
    assert again.calls == summary.calls
    assert again.text() == summary.text()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[1]", "line 2 is no JSON object"),
        ("{", "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
        ('{"time": ' + "9" * 5000 + "}", "line 2 is not JSON"),
        (LINE | {"counts": [1, 2]}, "line 2: counts must be a list with one number for each of 3 experts"),
        (LINE | {"counts": [1, 2, -1]}, r"line 2: counts\[2\] must be a whole number"),
        (LINE | {"counts": [1, True, 1]}, r"line 2: counts\[1\] must be a whole number"),
        (LINE | {"counts": [1, 1.0, 1]}, r"line 2: counts\[1\] must be a whole number"),
        (LINE | {"counts": [9, 0, 0]}, "line 2: 4 tokens cannot make 9 choices, with 2 slots each"),
        (LINE | {"tokens": -1}, "line 2: tokens must be a whole number"),
        (LINE | {"tokens": 2**60}, "line 2: tokens must be a whole number"),
        (LINE | {"tokens": 2**53}, "more choices than can be counted"),
        (LINE | {"calls": 0}, "line 2: calls must be a whole number from 1"),
        (LINE | {"time": float("nan")}, "line 2: time must be a number of seconds"),
        (LINE | {"time": "now"}, "line 2: time must be a number of seconds"),
        (LINE | {"histogram": {"3": 1}}, "line 2: histogram must have powers of two as keys, not '3'"),
        (LINE | {"histogram": {"4": 2}}, "line 2: histogram has 2 calls, not 1"),
        (LINE | {"histogram": []}, "line 2: histogram must be an object"),
        (LINE | {"more": 1}, "line 2: 'more' is not a known field"),
        ({"time": 1}, "line 2 has no field 'tokens'"),
    ],
)
def test_what_is_wrong_with_a_sample_is_named(line: str | dict[str, Any], says: str) -> None:
    text = line if isinstance(line, str) else json.dumps(line)
    with pytest.raises(TraceError, match=says):
        summarise_lines([HEAD, text.encode()])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"moec_trace": 2}, "the trace has the form 2; this moec reads form 1"),
        ({"moec_trace": True}, "the trace has the form true"),
        ({"experts": 0}, "line 1: experts must be a whole number from 1"),
        ({"slots": "2"}, "line 1: slots must be a whole number"),
        ({"layer": ""}, 'line 1: "layer" must be a name'),
        ({"layer": "\x1b"}, 'line 1: "layer" must be a name'),
        ({"more": 1}, "line 1: 'more' is not a known field"),
    ],
)
def test_what_is_wrong_with_a_header_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(TraceError, match=says):
        summarise_lines([json.dumps(json.loads(HEAD) | change).encode()])


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="there is no whole line in it"):
        summarise_lines([])
    with pytest.raises(TraceError, match="line 1 is not JSON"):
        summarise_lines([b"layer A"])
    with pytest.raises(TraceError, match="no header"):
        summarise_lines([b"{}"])
    with pytest.raises(OSError, match="missing"):
        summarise(tmp_path / "missing.trace")


def test_a_writer_refuses_what_could_not_be_read(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "a.trace", HEADER) as writer, pytest.raises(TraceError, match="4 tokens cannot make 9"):
        writer.write(Sample(1.0, 4, (9, 0, 0)))
    assert summarise(tmp_path / "a.trace").samples == 0
    with pytest.raises(TraceError, match="experts must be"):
        TraceWriter(tmp_path / "b.trace", Header("Demo", 0, 1))


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    for lines in ([data], [HEAD, data]):
        with contextlib.suppress(TraceError):
            summarise_lines(lines)


def test_samples_come_back_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    samples = [Sample(float(i), 4, (i, 4 - i), 2, {2: 2}) for i in range(3)]
    with TraceWriter(path, Header("L", 2, 1)) as writer:
        for sample in samples:
            writer.write(sample)
    assert read(path) == (Header("L", 2, 1), samples)
