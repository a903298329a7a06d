"""Schedules as JSON: what is written is read back equal, and what is wrong is named by its path."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.artifact.fields import Fields, InvalidManifest
from moec.artifact.schedules import read_schedules, schedules_data
from moec.schedule.build import Options, both
from tests.schedule.wirings import WIRINGS, options


@given(st.data(), st.sampled_from(sorted(WIRINGS)), st.booleans())
def test_round_trip(data: st.DataObject, name: str, training: bool) -> None:
    schedules = both(WIRINGS[name], data.draw(options(WIRINGS[name])), training)
    text = json.dumps(schedules_data(schedules))
    assert read_schedules(Fields.of(json.loads(text), "schedule")) == schedules


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: data.pop("wiring"), "schedule.wiring is missing"),
        (lambda data: data["wiring"].update(ep=["gpu", "node"]), "outermost first"),
        (lambda data: data["forward"].update(direction="backward"), "schedule.forward.direction must be"),
        (lambda data: data["forward"].update(buffers=3), "schedule.forward.buffers must lie between"),
        (lambda data: data["forward"]["steps"][0].update(kind="rout"), r"steps\[0\].kind must be one of"),
        (lambda data: data["forward"]["steps"][2].update(chunk=2), r"steps\[2\].chunk must lie between"),
        (lambda data: data["forward"]["steps"][0].update(extra=1), r"steps\[0\].extra is not a known field"),
    ],
)
def test_what_is_wrong_is_named(change: Any, why: str) -> None:
    data = json.loads(json.dumps(schedules_data(both(WIRINGS["two axes"], Options(chunks=2), False))))
    change(data)
    with pytest.raises(InvalidManifest, match=why):
        read_schedules(Fields.of(data, "schedule"))
