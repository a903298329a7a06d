"""The JSON form says what the text says."""

from __future__ import annotations

import json

from moec.diagnostics import Collector, Label, Source, Span, did_you_mean, render_json


def test_json_holds_everything() -> None:
    source = Source("a.moe", "x = 1\ny = fo\n")
    found = Collector()
    place = Span(source, 10, 12)
    found.error(
        "E0201", "nothing is called `fo`", place, "unknown", also=[Label(Span(source, 0, 1), "here")], notes=["why"],
        fix=did_you_mean("fo", ["foo"], place),
    )  # fmt: skip
    document = json.loads(render_json(found.diagnostics))
    (one,) = document["diagnostics"]
    assert document["schema"] == 1
    assert one["labels"][0] == {
        "primary": True,
        "text": "unknown",
        "span": {
            "file": "a.moe",
            "start": {"offset": 10, "line": 2, "column": 5},
            "end": {"offset": 12, "line": 2, "column": 7},
        },
    }
    assert one["fix"]["replacement"] == "foo"
    for said in (one["code"], one["message"], one["notes"][0], one["fix"]["text"], *(x["text"] for x in one["labels"])):
        assert said in one["rendered"]
