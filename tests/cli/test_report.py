"""The page of `moec report`: well-formed, whole by itself, right, and harmless whoever wrote the journal."""

from __future__ import annotations

import json
import re
import struct
import zlib
from base64 import b64decode
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from moec.cli.app import app
from moec.cli.page import charts, scales
from moec.cli.page.bins import Bins
from moec.cli.page.heat import heat
from moec.cli.page.png import indexed, ramp
from moec.cli.page.timeline import Timeline
from moec.journal import Sample, Swap
from moec.journal.parsing import parse
from tests.journal import drifting, moving

VOID = {"meta", "img", "input", "source", "br"}


class Page(HTMLParser):
    """Checks that elements are nested, and collects what the page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag not in VOID
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(data for tag, data in self.texts if tag not in ("script", "style"))

    @property
    def data(self) -> Any:
        place = next(n for n, (tag, attributes) in enumerate(self.tags) if attributes.get("id") == "data")
        assert place
        return json.loads(next(data for tag, data in self.texts if data.startswith('{"times"')))


def report(path: Path, *arguments: str) -> Page:
    result = CliRunner().invoke(app, ["report", str(path), *arguments])
    assert result.exit_code == 0, result.output
    return Page((path.with_suffix(".html")).read_text())


def journal(folder: Path, seconds: int = 900, experts: int = 64, slots: int = 8, **fields: Any) -> Path:
    return drifting.write(folder / "j.jsonl", drifting.records(seconds, experts, slots, **fields))


def samples(seconds: int, experts: int = 8) -> Iterator[Sample]:
    for record in drifting.records(seconds, experts, 2):
        read = parse(json.dumps(record).encode())
        if isinstance(read, Sample):
            yield read


def test_it_says_what_happened(tmp_path: Path) -> None:
    page = report(journal(tmp_path))
    for expected in (
        "OLMoE",
        "64 experts, 8 a token · avx512_bf16 · policy Serve · process 4242",
        "15 min",
        "process died",
        "imbalance > 1.3 and tokens >= 64",
        "kept: measured 1.33x over 412 calls",
        "taken back: measured 0.97x over 380 calls, 1.05x are needed",
        "failed: the compiler took longer than 60 s",
        "published beside base, on trial",
        "gain 1.35×, 48,000 calls, compiling 1 s, because imbalance > 1.3",
        "into memory: experts 3, 17",
    ):
        assert expected in page.text, expected
    cells = [data for tag, data in page.texts if tag == "td"]
    assert {"1.31×", "1.33×", "0.97×"} <= set(cells), "on recorded rows, kept, taken back"
    events = [data for tag, data in page.texts if tag == "td" and data in ("compile", "swap", "rollback", "keep")]
    assert events == ["compile", "rollback", "swap", "compile", "keep", "swap", "compile"], "the latest first"


def test_nothing_is_loaded(tmp_path: Path) -> None:
    page = report(journal(tmp_path, layer="https://evil.example/x.js"))
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "href", "action", "data", "poster", "xlink:href"):
            value = attributes.get(name, "")
            assert value == "" or value.startswith(("data:image/png;base64,", "#")), (tag, name, value)
        assert not any(name.startswith("on") for name in attributes)
        assert "url(" not in attributes.get("style", "")
    assert {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "base", "form"} == set()
    (style,) = [data for tag, data in page.texts if tag == "style"]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-")


def test_a_stranger_s_text_is_text(tmp_path: Path) -> None:
    evil = """</style></script></div><script>alert(1)</script><img src=x onerror=alert(1)>"'&\x00\x1b[0m"""
    records = list(drifting.records(60))
    records[0] = drifting.start(layer=evil, variant=evil, host=evil, artifact=evil)
    records[0]["policy"]["triggers"][0]["text"] = evil
    for record in records[1:]:
        for name in ("why", "candidate", "to", "from"):
            if isinstance(record.get(name), str):
                record[name] = evil
        if record["event"] == "sample":
            record["active"] = ["base", evil]
    page = report(drifting.write(tmp_path / "j.jsonl", iter(records)))
    assert len(page.all("script")) == 1
    assert not [image for image in page.all("img") if not image["src"].startswith("data:")]
    assert page.text.count("<script>alert(1)</script>") > 5
    assert all(char.isprintable() or char == "\n" for char in page.text)


def test_everything_has_a_name_for_those_who_do_not_see(tmp_path: Path) -> None:
    page = report(journal(tmp_path))
    assert page.all("html")[0]["lang"] == "en"
    assert all(image["alt"] for image in page.all("img"))
    for drawing in page.all("svg"):
        assert drawing["role"] == "img"
        assert "over time, from" in drawing["aria-label"]
    (slider,) = page.all("input")
    assert (slider["type"], slider["aria-label"]) == ("range", "Moment")
    assert all(head["scope"] == "col" for head in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    lanes = [attributes["aria-label"] for tag, attributes in page.tags if attributes.get("class") == "lane"]
    assert [lane.split()[0] for lane in lanes] == ["base", "tokens_1_16", "tokens_257_4096"]
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = page.all("a")
    assert len(links) == 6
    assert all(link["href"][1:] in targets and link["aria-label"] for link in links)
    assert [heading for tag, heading in page.texts if tag == "h1"] == ["OLMoE"]


def test_what_a_capacity_drops(tmp_path: Path) -> None:
    path = drifting.write(tmp_path / "j.jsonl", drifting.records(20, overflow=0.125))
    values = dict(report(path).data["curves"])["Dropped by the capacity"]
    assert set(values) - {None} == {"12.5 %"}
    assert "Dropped by the capacity" not in dict(report(journal(tmp_path, 20)).data["curves"])


def test_the_moments_figures(tmp_path: Path) -> None:
    page = report(journal(tmp_path, 300, 8, 2))
    data = page.data
    spans = len(data["times"]) - 1
    assert all(len(values) == spans for _, values in data["curves"])
    assert len(data["active"]) == spans
    assert data["names"] == ["base", "tokens_1_16", "tokens_257_4096"]
    bytes_ = np.frombuffer(b64decode(data["load"]), np.uint8).reshape(8, spans)
    load = np.where(bytes_ > 0, data["top"] * ((bytes_.astype(float) - 1) / 254) ** 3, np.nan)
    want = [one.load for one in Timeline.of(samples(300)).bins.bins]
    assert None not in want
    np.testing.assert_allclose(load[:, -len(want) :], np.array(want).T * 8, rtol=0.03, atol=0.02)


def test_hours_of_many_experts_make_a_small_page(tmp_path: Path) -> None:
    page = report(journal(tmp_path, 2000, 256))
    assert len((tmp_path / "j.html").read_bytes()) < 1_000_000
    assert 300 <= len(page.data["times"]) - 1 <= 600
    assert page.data["rows"] == 256


def test_half_lines_and_damage_are_normal(tmp_path: Path) -> None:
    path = journal(tmp_path, 60)
    path.write_bytes(b"\0\0\0\n" + path.read_bytes()[:-40])
    assert "1 lines are damaged" in report(path).text
    path.write_bytes(b"")
    result = CliRunner().invoke(app, ["report", str(path)])
    assert result.exit_code == 1
    assert "is no journal of an adapting layer" in result.stderr


@pytest.mark.parametrize("kept", [1, 2, 5])
def test_the_beginning_alone(tmp_path: Path, kept: int) -> None:
    path = journal(tmp_path, 5)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:kept]))
    page = report(path)
    assert ("There is no sample" in page.text) == (kept == 1)
    assert "No variant was compiled." in page.text


def test_a_journal_without_its_beginning(tmp_path: Path) -> None:
    path = journal(tmp_path, 60)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[30:]))
    assert "does not say how it began" in report(path).text


def test_where_it_is_written(tmp_path: Path) -> None:
    path = journal(tmp_path, 5)
    target = tmp_path / "other.html"
    result = CliRunner().invoke(app, ["report", str(path), "-o", str(target)])
    assert result.exit_code == 0
    assert f"wrote {target}" in result.stderr
    assert Page(target.read_text()).all("svg")
    assert "No such file" in CliRunner().invoke(app, ["report", str(tmp_path / "none")]).stderr


def test_another_layer_in_the_same_journal_begins_anew() -> None:
    lines = [*drifting.records(20), *drifting.records(10, 8, 2, layer="Mixtral")]
    records = [parse(json.dumps(line).encode()) for line in lines]
    timeline = Timeline.of(record for record in records if record is not None)
    assert timeline.start is not None
    assert (timeline.start.layer, timeline.earlier) == ("Mixtral", 1)
    assert sum(one.samples for one in timeline.bins.bins) == 10


def test_very_many_events_are_bounded() -> None:
    timeline = Timeline.of(Swap(float(n), ("base",), f"v{n}", (), None) for n in range(5000))
    assert len(timeline.events) == 2000
    assert timeline.dropped == 3000
    assert len(timeline.variants) == 64
    assert len(charts.mark_events(timeline)) == 400


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.integers(2, 20))
def test_binning_sums_up(times: list[float], most: int) -> None:
    source = list(samples(30))
    bins = Bins(0.0, most)
    for place, time in enumerate(times):
        sample = source[place % len(source)]
        bins.add(Sample(time, **{name: getattr(sample, name) for name in Sample.__slots__ if name != "time"}))
    used = [source[place % len(source)] for place in range(len(times))]
    assert len(bins.bins) <= most
    assert sum(one.samples for one in bins.bins) == len(times)
    assert sum(one.calls for one in bins.bins) == sum(sum(sample.histogram.values()) for sample in used)
    tokens = [sum(sample.histogram.values()) * sample.tokens_per_call for sample in used]
    want = sum(np.array(sample.load) * weight for sample, weight in zip(used, tokens, strict=True))
    found = sum(np.array(one.chosen) for one in bins.bins if one.chosen)
    np.testing.assert_allclose(found, want, rtol=1e-9)
    assert max(one.p99_ms or 0 for one in bins.bins) == max(sample.p99_ms or 0 for sample in used)
    assert bins.begin + max(times) <= bins.end + 1e-6 * bins.end
    assert set().union(*(one.active for one in bins.bins)) == set().union(*(sample.active for sample in used))


def test_pictures() -> None:
    picture = indexed([bytes([0, 1, 255]), bytes([2, 3, 4])], ramp([(0, 0, 0), (255, 255, 255)]))
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    place, chunks = 8, {}
    while place < len(picture):
        (length,) = struct.unpack(">I", picture[place : place + 4])
        kind, data = picture[place + 4 : place + 8], picture[place + 8 : place + 8 + length]
        (check,) = struct.unpack(">I", picture[place + 8 + length : place + 12 + length])
        assert check == zlib.crc32(kind + data)
        chunks[kind] = data
        place += 12 + length
    assert list(chunks) == [b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"]
    assert chunks[b"IHDR"] == struct.pack(">IIBBBBB", 3, 2, 8, 3, 0, 0, 0)
    assert zlib.decompress(chunks[b"IDAT"]) == bytes([0, 0, 1, 255, 0, 2, 3, 4])
    assert len(chunks[b"PLTE"]) == 3 * 256
    assert chunks[b"PLTE"][-3:] == b"\xff\xff\xff"


def test_heat_keeps_small_and_large() -> None:
    made = heat([[0.0, 1.0], None, [0.1, 40.0]], 2, 4.0)
    assert made.rows[0][1] == made.rows[1][1] == 0
    assert made.top == 40.0
    assert [made.value(row[2]) for row in made.rows] == pytest.approx([0.1, 40.0], rel=0.05)
    assert made.value(made.rows[0][0]) == 0.0
    many = heat([[1.0] * 3000], 3000, 4.0)
    assert (len(many.rows), many.per_row) == (1000, 3)


@pytest.mark.parametrize("length", [0.5, 3, 59, 600, 7200, 86400, 10 * 86400, 1e9])
def test_times_on_the_axis_are_round_and_few(length: float) -> None:
    begin = drifting.BEGIN + 12.3
    ticks = scales.time_ticks(begin, begin + length)
    assert len(ticks) <= 9
    assert all(begin <= time <= begin + length for time, _ in ticks)
    assert len({name for _, name in ticks}) == len(ticks)
    assert len(ticks) >= (1 if length >= 3 else 0)


@given(st.lists(st.floats(0, 1e12), max_size=20), st.booleans())
def test_scales_hold_their_values(values: list[float], binary: bool) -> None:
    made = scales.scale(values, binary)
    assert 2 <= len(made.ticks) <= 5
    for value in values:
        assert -1e-9 <= made.place(value) <= 1 + 1e-9
    assert [made.place(tick) for tick in made.ticks] == sorted(made.place(tick) for tick in made.ticks)


def test_the_script_uses_only_what_the_page_has(tmp_path: Path) -> None:
    page = report(journal(tmp_path, 30))
    (script,) = [data for tag, data in page.texts if tag == "script"]
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert set(re.findall(r'getElementById\("(\w+)"\)', script)) <= ids
    assert set(re.findall(r"data\.(\w+)", script)) == set(page.data)
    assert "innerHTML" not in script


def test_experts_that_move(tmp_path: Path) -> None:
    page = report(drifting.write(tmp_path / "j.jsonl", moving.records()))
    for expected in (
        "experts may move between 4 ranks · process 4242",
        "imbalance 2.50×, then 1.25×, 6 copies, saves 40 s, takes 3 s",
        "6 copies between all ranks in 3.1 s; 4.0 MiB sent here",
        "tables 1 are in force at step 1,234, which waited 50 µs for it",
        "a rank cannot read its weights",
        "in order",
    ):
        assert expected in page.text, expected
    for unexpected in ("variant", "adapt", "no sample", "does not know"):
        assert unexpected not in page.text, unexpected
    marks = [mark["aria-label"].split(" ", 1)[1] for mark in page.all("a")]
    assert marks == ["tables", "failed"]
    places = [float(mark["style"].removeprefix("left: ").removesuffix("%")) for mark in page.all("a")]
    assert places == pytest.approx([100 * 95 / 300, 100 * 200 / 300], abs=0.01)
