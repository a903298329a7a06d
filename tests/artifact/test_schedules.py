"""Schedules as JSON: what is written is read back equal, and what is wrong is named by its path."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.artifact.fields import Fields, InvalidManifest
from moec.artifact.manifest import Manifest
from moec.artifact.schedules import read_schedules, schedules_data, wiring
from moec.errors import ArtifactError
from moec.schedule.build import Options, both
from tests.artifact.samples import manifest
from tests.artifact.test_parallel import full, plain
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


def test_an_unsound_schedule_is_refused() -> None:
    data = json.loads(json.dumps(schedules_data(both(WIRINGS["two axes"], Options(chunks=2), False))))
    next(step for step in data["forward"]["steps"] if step["name"] == "experts.1")["waits"] = []
    with pytest.raises(InvalidManifest, match=r"schedule: step experts.1: does not wait for"):
        read_schedules(Fields.of(data, "schedule"))


def test_a_manifest_has_the_schedule_of_its_layout() -> None:
    of = plain()
    made = both(wiring(of, capacity=False), Options(), training=False)
    text = replace(manifest(), parallel=of, schedule=made).to_json()
    assert Manifest.from_json(text).schedule == made
    other = both(WIRINGS["flat"], Options(), training=False)
    with pytest.raises(ArtifactError, match="must be that of `parallel`"):
        Manifest.from_json(replace(manifest(), parallel=of, schedule=other).to_json())


def test_shared_experts_are_cut_alike() -> None:
    with pytest.raises(ValueError, match="over the same axes"):
        wiring(full(), capacity=False)
    alike = replace(full(), shared=full().shared[:1])
    found = wiring(alike, capacity=True)
    assert (found.ep, found.tp, found.shared, found.shared_tp) == (("node",), ("gpu",), True, ("gpu",))
    text = replace(manifest(), parallel=full(), schedule=both(found, Options(), training=False)).to_json()
    with pytest.raises(ArtifactError, match="over the same axes"):
        Manifest.from_json(text)


JUNK = st.sampled_from([None, True, -1, 0, 1, 2, 7, "", "gpu", "route", "experts", [], ["gpu"], {}, [{"axes": []}]])


@given(st.data(), st.sampled_from(sorted(WIRINGS)), JUNK)
def test_no_junk_does_more_than_be_refused(data: st.DataObject, name: str, junk: object) -> None:
    made = json.loads(json.dumps(schedules_data(both(WIRINGS[name], Options(chunks=2), True))))
    record = data.draw(st.sampled_from([made["wiring"], made["forward"], made["backward"], *made["forward"]["steps"]]))
    key = data.draw(st.sampled_from(sorted(record)))
    record[key] = junk
    try:
        found = read_schedules(Fields.of(made, "schedule"))
    except InvalidManifest:
        return
    assert schedules_data(found) == made
