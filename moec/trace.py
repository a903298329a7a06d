"""Trace files: how many tokens the calls of a layer had, and which experts they chose.

A file is JSON Lines.  The first is a header, `{"moec_trace": 1, "layer": "OLMoE", "experts": 64, "slots": 8}`; each of
the others is a `Sample`.  A last line without its end is being written, or was when its writer died, and is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import add
from pathlib import Path
from types import TracebackType
from typing import Any

from moec.errors import TraceError

VERSION = 1
LARGEST_FILE = 1 << 26
"""Bytes that are read."""
LONGEST_LINE = 1 << 24
MOST_EXPERTS = 1 << 20
_LARGEST = 2**53
_LONGEST_NAME = 256
_LATEST = 2.5e11
"""Seconds since 1970; about the year 9892."""


@dataclass(frozen=True)
class Header:
    """Whose choices a file holds: a layer, how many routed experts it has, and how many a token chooses at most."""

    layer: str
    experts: int
    slots: int


@dataclass(frozen=True)
class Sample:
    """One call, or all calls of an interval.

    time       when it ended, seconds since 1970
    tokens     of all these calls together
    counts     how often each expert was chosen, before a capacity drops any
    calls      how many calls there were
    histogram  calls by the power of two at or below their tokens (0: none); where it is left out, all had equally many
    """

    time: float
    tokens: int
    counts: tuple[int, ...]
    calls: int = 1
    histogram: Mapping[int, int] | None = None


@dataclass
class Summary:
    """The sums of a file's samples."""

    header: Header
    counts: list[int] = field(default_factory=list)
    histogram: dict[int, int] = field(default_factory=dict)
    samples: int = 0
    calls: int = 0
    tokens: int = 0
    begin: float | None = None
    end: float | None = None

    def add(self, sample: Sample) -> None:
        """Raises TraceError if there are too many choices to count."""
        self.counts = list(map(add, self.counts or [0] * self.header.experts, sample.counts))
        for power, calls in (sample.histogram or {size_class(sample.tokens // sample.calls): sample.calls}).items():
            self.histogram[power] = self.histogram.get(power, 0) + calls
        if (self.tokens + sample.tokens) * self.header.slots > _LARGEST:
            raise TraceError("the trace has more choices than can be counted")
        self.samples += 1
        self.calls += sample.calls
        self.tokens += sample.tokens
        self.begin = sample.time if self.begin is None else min(self.begin, sample.time)
        self.end = sample.time if self.end is None else max(self.end, sample.time)

    def text(self) -> str:
        """A trace file of one sample that has the same summary."""
        sample = Sample(
            self.end or 0.0, self.tokens, tuple(self.counts), self.calls, dict(sorted(self.histogram.items()))
        )
        return _line(_header_data(self.header)) + (_line(_sample_data(sample)) if self.calls else "")


class TraceWriter:
    """Writes a trace file; every sample is in the file when `write` returns.  Replaces a file that is there.

    Raises TraceError for a header that cannot be read back, OSError where the file cannot be written.
    """

    def __init__(self, path: str | Path, header: Header) -> None:
        self._header = _read_header(_header_data(header))
        self._file = open(path, "w", encoding="utf-8", buffering=1)  # noqa: SIM115 - closed by `close`
        self._file.write(_line(_header_data(header)))

    def write(self, sample: Sample) -> None:
        """Raises TraceError for a sample that does not fit the header, OSError where the file cannot be written."""
        line = _line(_sample_data(sample))
        _read_sample(json.loads(line), self._header, "the sample")
        self._file.write(line)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def summarise(path: str | Path) -> Summary:
    """The sums of a trace file.  Raises TraceError for what is none or is too large, OSError."""
    return summarise_lines(_lines(path))


def read(path: str | Path) -> tuple[Header, list[Sample]]:
    """A trace file, sample by sample.  Raises TraceError for what is none or is too large, OSError."""
    numbered = enumerate(_lines(path), 1)
    header = _first(numbered)
    return header, list(_samples(numbered, header))


def summarise_lines(lines: Iterable[bytes]) -> Summary:
    """The sums of a trace file's lines.  Raises TraceError, which names the line."""
    numbered = enumerate(lines, 1)
    summary = Summary(_first(numbered))
    for sample in _samples(numbered, summary.header):
        summary.add(sample)
    return summary


def _lines(path: str | Path) -> list[bytes]:
    with Path(path).open("rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise TraceError(f"the trace has more than {LARGEST_FILE:,} bytes")
    return data.split(b"\n")[:-1]


def _first(numbered: Iterator[tuple[int, bytes]]) -> Header:
    for number, line in numbered:
        return _read_header(_object(line, number))
    raise TraceError("there is no whole line in it; `layer.statistics.record(FILE)` writes traces")


def _samples(numbered: Iterator[tuple[int, bytes]], header: Header) -> Iterator[Sample]:
    for number, line in numbered:
        if line.strip():
            yield _read_sample(_object(line, number), header, f"line {number}")


def _object(line: bytes, number: int) -> dict[str, Any]:
    if len(line) > LONGEST_LINE:
        raise TraceError(f"line {number} has more than {LONGEST_LINE:,} bytes")
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise TraceError(f"line {number} is not JSON") from None
    if not isinstance(data, dict):
        raise TraceError(f"line {number} is no JSON object")
    return data


def _read_header(data: Mapping[str, Any]) -> Header:
    if "moec_trace" not in data:
        raise TraceError('line 1 is no header of a trace: it has no field "moec_trace"')
    version = data["moec_trace"]
    if version != VERSION or isinstance(version, bool):
        raise TraceError(f"the trace has the form {json.dumps(version)[:20]}; this moec reads form {VERSION}")
    _only(data, ("moec_trace", "layer", "experts", "slots"), "line 1")
    layer = data["layer"]
    if not isinstance(layer, str) or not 0 < len(layer) <= _LONGEST_NAME or not layer.isprintable():
        raise TraceError('line 1: "layer" must be a name')
    experts = _whole(data["experts"], "line 1: experts", 1, MOST_EXPERTS)
    return Header(layer, experts, _whole(data["slots"], "line 1: slots", 1, MOST_EXPERTS))


def _read_sample(data: Mapping[str, Any], header: Header, at: str) -> Sample:
    _only(data, ("time", "tokens", "counts"), at, ("calls", "histogram"))
    time = data["time"]
    if isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time < _LATEST:
        raise TraceError(f"{at}: time must be a number of seconds since 1970")
    tokens = _whole(data["tokens"], f"{at}: tokens")
    calls = _whole(data.get("calls", 1), f"{at}: calls", 1)
    counts = data["counts"]
    if not isinstance(counts, list) or len(counts) != header.experts:
        raise TraceError(f"{at}: counts must be a list with one number for each of {header.experts:,} experts")
    for number, count in enumerate(counts):
        if type(count) is not int or not 0 <= count <= _LARGEST:
            raise TraceError(f"{at}: counts[{number}] must be a whole number from 0")
    if sum(counts) > tokens * header.slots:
        raise TraceError(f"{at}: {tokens:,} tokens cannot make {sum(counts):,} choices, with {header.slots} slots each")
    histogram = None if data.get("histogram") is None else _read_histogram(data["histogram"], calls, at)
    return Sample(float(time), tokens, tuple(counts), calls, histogram)


def _read_histogram(data: object, calls: int, at: str) -> dict[int, int]:
    if not isinstance(data, dict):
        raise TraceError(f"{at}: histogram must be an object")
    powers = {str(power): power for power in (0, *(1 << bit for bit in range(53)))}
    histogram: dict[int, int] = {}
    for key, count in data.items():
        if key not in powers:
            raise TraceError(f"{at}: histogram must have powers of two as keys, not {key[:20]!r}")
        histogram[powers[key]] = _whole(count, f"{at}: histogram[{key!r}]")
    if sum(histogram.values()) != calls:
        raise TraceError(f"{at}: histogram has {sum(histogram.values()):,} calls, not {calls:,}")
    return histogram


def _whole(value: object, at: str, low: int = 0, high: int = _LARGEST) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise TraceError(f"{at} must be a whole number from {low} to {high:,}")
    return value


def _only(data: Mapping[str, Any], needed: tuple[str, ...], at: str, optional: tuple[str, ...] = ()) -> None:
    for name in needed:
        if name not in data:
            raise TraceError(f"{at} has no field {name!r}")
    for name in data:
        if name not in needed and name not in optional:
            raise TraceError(f"{at}: {name[:40]!r} is not a known field")


def size_class(tokens: int) -> int:
    """The power of two at or below a number of tokens, 0 for none."""
    return 1 << (tokens.bit_length() - 1) if tokens else 0


def _header_data(header: Header) -> dict[str, Any]:
    return {"moec_trace": VERSION, "layer": header.layer, "experts": header.experts, "slots": header.slots}


def _sample_data(sample: Sample) -> dict[str, Any]:
    data: dict[str, Any] = {"time": sample.time, "tokens": sample.tokens, "counts": list(sample.counts)}
    if sample.calls != 1:
        data["calls"] = sample.calls
    if sample.histogram is not None:
        data["histogram"] = {str(power): calls for power, calls in sample.histogram.items()}
    return data


def _line(data: Mapping[str, Any]) -> str:
    return json.dumps(data, separators=(",", ":")) + "\n"
