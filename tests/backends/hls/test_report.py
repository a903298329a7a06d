"""The estimate and its page: what stands there, that it agrees with the models, and that it loads nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from moec.backends.hls.board import find_board
from moec.backends.hls.report import report
from moec.fixed.data import as_data
from moec.fixed.design import Design, Order
from moec.fixed.model.kernel import resources
from moec.fixed.model.timing import predict
from moec.fixed.model.traffic import balance, even_counts
from moec.fixed.spec import Activation, Expert, Weights
from tests.fixed.samples import DESIGN, EDGE

DECIDED = ['hls-order: expert-major ["edge.moe":1:1]', "hls-array: <b>16 x 16</b> & more"]
PLAIN = replace(DESIGN, board=find_board("zcu102"))
MANY = replace(
    DESIGN,
    board=find_board("u280"),
    tokens=3,
    order=Order.TOKEN,
    layer=replace(EDGE, weights=Weights.TERNARY, shared=1, common=Expert(384, Activation.GELU, True, False)),
)


@pytest.mark.parametrize(("name", "design"), [("plain", PLAIN), ("token_major", MANY)])
def test_files_stay_as_they_are(name: str, design: Design, golden: Callable[[str, str], None]) -> None:
    files = report(design, DECIDED)
    assert sorted(files) == ["report/estimate.json", "report/index.html"]
    for path, data in files.items():
        golden(f"{name}/{path}", data.decode())


def test_the_estimate_is_that_of_the_models() -> None:
    found = json.loads(report(PLAIN, DECIDED)["report/estimate.json"])
    made = predict(PLAIN, even_counts(EDGE, PLAIN.tokens))
    assert found["design"] == as_data(PLAIN)
    assert found["decisions"] == DECIDED
    assert found["call"]["seconds"] == made.seconds
    assert found["call"]["cycles"]["total"] == made.latency.total
    assert found["kernel"]["total"]["dsp"] == resources(PLAIN).dsp
    assert found["roofline"]["balance"] == balance(PLAIN)
    assert found["calls"][-1] == found["call"]
    here = [one for one in found["alternatives"] if (one["weights"], one["ports"]) == ("int8", PLAIN.ports)]
    assert [(one["inputs"], one["outputs"], one["seconds"]) for one in here] == [(16, 16, made.seconds)]
    assert "Modelled" in found["says"]


class Reader(HTMLParser):
    """What a page loads, and whether its elements are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag in ("script", "link", "iframe"):
            self.loads.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("design", [PLAIN, MANY])
def test_the_page_is_whole_and_loads_nothing(design: Design) -> None:
    text = report(design, DECIDED)["report/index.html"].decode()
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert reader.loads == []
    assert "url(" not in text
    assert "&lt;b&gt;16 x 16&lt;/b&gt; &amp; more" in text
    assert "nan" not in re.sub(r"[a-z]+nan|nan[a-z]+", "", text)
