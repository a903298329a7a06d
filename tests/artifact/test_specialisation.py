"""Specialisations come back from JSON as they were, and what is wrong with one is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.artifact.manifest import Manifest
from moec.artifact.specialisation import QuantisedExperts, Specialisation
from moec.errors import ArtifactError
from moec.formats import FORMATS
from tests.artifact.samples import manifest

QUANTISED = QuantisedExperts("routed", (3, 7), "int4", 32, "bf16")
SAMPLE = Specialisation("mixed", (1, 16), 1.5, (QUANTISED,))

groups = st.sets(st.integers(0, 2**20), min_size=1, max_size=8).map(sorted).map(tuple)
quantised = st.builds(
    QuantisedExperts,
    st.just("routed"),
    groups,
    st.sampled_from(list(FORMATS)),
    st.none() | st.integers(1, 4096),
    st.sampled_from(["f32", "bf16"]),
)
ranges = st.tuples(st.integers(0, 100), st.integers(100, 2**31 - 1))
specialisations = st.builds(
    Specialisation,
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,63}", fullmatch=True),
    st.none() | ranges,
    st.none() | st.floats(0.01, 64),
    st.just(()) | quantised.map(lambda one: (one,)),
)


@given(specialisations)
def test_comes_back(made: Specialisation) -> None:
    assert Specialisation.from_json(made.to_json()) == made


def test_exact_is_what_keeps_capacity_and_formats() -> None:
    assert Specialisation("few", (1, 16)).exact
    assert not Specialisation("wide", None, 2.0).exact
    assert not Specialisation("cold", None, None, (QUANTISED,)).exact


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("name"), r"specialisation\.name is missing"),
        (lambda s: s.update(name="a/b"), r"specialisation\.name is not well formed"),
        (lambda s: s.update(name="a" * 65), r"specialisation\.name is not well formed"),
        (lambda s: s.update(tokens=[16, 1]), r"tokens must be the fewest and the most"),
        (lambda s: s.update(tokens=[1]), r"tokens must be the fewest and the most"),
        (lambda s: s.update(tokens=[-1, 4]), r"tokens\[0\] must lie between"),
        (lambda s: s.update(capacity=0), r"capacity must lie above 0"),
        (lambda s: s.update(capacity="1"), r"capacity must be a finite number"),
        (lambda s: s.update(exact=True), r"exact must be false"),
        (lambda s: s.update(more=1), r"specialisation\.more is not a known field"),
        (lambda s: s["quantised"][0].update(numbers=[]), r"numbers must be numbers of experts, ascending"),
        (lambda s: s["quantised"][0].update(numbers=[7, 3]), r"numbers must be numbers of experts, ascending"),
        (lambda s: s["quantised"][0].update(format="int3"), r"format must be one of"),
        (lambda s: s["quantised"][0].update(group=0), r"group must lie between"),
        (lambda s: s["quantised"].append(s["quantised"][0]), "an expert stands there twice"),
    ],
)
def test_what_is_wrong_is_named(change: Change, says: str) -> None:
    data = json.loads(SAMPLE.to_json())
    change(data)
    with pytest.raises(ArtifactError, match=says):
        Specialisation.from_data(data)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100000])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError):
        Specialisation.from_json(text)


def test_a_manifest_names_it_and_its_base() -> None:
    made = replace(manifest(), specialisation=SAMPLE, base="ab" * 32)
    assert Manifest.from_json(made.to_json()) == made
    assert "specialisation" not in json.loads(manifest().to_json())
    with pytest.raises(ArtifactError, match="base: what is not specialised has none"):
        Manifest.from_json(replace(manifest(), base="ab" * 32).to_json())
    unknown = replace(SAMPLE, quantised=(replace(QUANTISED, numbers=(8,)),))
    with pytest.raises(ArtifactError, match="there are 8 routed experts, none with number 8"):
        Manifest.from_json(replace(manifest(), specialisation=unknown, base="ab" * 32).to_json())
