"""The policy of a manifest: it comes back, nothing in it is believed unchecked, and conditions mean what they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.artifact.manifest import Manifest
from moec.artifact.policy import (
    COMPARE,
    MEASURES,
    Coldest,
    Combination,
    Comparison,
    Condition,
    Page,
    Policy,
    Trigger,
    Window,
)
from moec.artifact.traffic import Load, Observed, Routing, Uniform, Zipf
from moec.errors import ArtifactError
from tests.artifact.samples import manifest

Change = Callable[[dict[str, Any]], object]

BUSY = Combination("and", (Comparison("imbalance", ">", 1.3), Comparison("tokens", ">=", 64)))


ZIPF = Zipf(1.2)


def policy(routing: Routing = ZIPF) -> Policy:
    return Policy(
        layout="Serve",
        load=Load("Chat", (1, 4096), routing),
        triggers=(
            Trigger(BUSY, "imbalance > 1.3 and tokens >= 64", Window(calls=200), 0.1, 1.05),
            Trigger(Comparison("memory", ">", 2.0**31), "memory > 2 GiB", Window(seconds=30.0)),
        ),
        tokens=((1, 16), (17, 256), (257, 4096)),
        capacity=(1.0, 2.0),
        quantise=(Coldest("routed", 4, "int4", 32, "bf16"), Coldest("routed", 2, "ternary", None, "f32")),
        page=Page("routed", 2**31),
    )


def data(of: Policy) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(replace(manifest(), policy=of).to_json())
    return loaded


@pytest.mark.parametrize("routing", [Uniform(), Zipf(0.7), Observed((3, 0, 9), ((0, 1), (1, 4), (1024, 2)))])
def test_comes_back(routing: Routing) -> None:
    for one in (policy(routing), Policy("Empty"), replace(policy(), load=None, page=None, capacity=None)):
        assert Manifest.from_json(json.dumps(data(one)).encode()).policy == one
    assert "policy" not in json.loads(manifest().to_json())


def test_follows_the_documented_form() -> None:
    of = data(policy())["policy"]
    assert of["load"] == {"name": "Chat", "tokens": [1, 4096], "routing": {"kind": "zipf", "exponent": 1.2}}
    assert of["triggers"][0]["window"] == {"calls": 200}
    assert of["triggers"][0]["when"]["of"][0] == {"measure": "imbalance", "compare": ">", "value": 1.3}
    assert of["triggers"][1]["window"] == {"seconds": 30.0}
    assert of["page"] == {"experts": "routed", "bytes": 2**31}


def deep(depth: int) -> dict[str, Any]:
    leaf = {"measure": "tokens", "compare": ">", "value": 1}
    return {"op": "and", "of": [leaf, deep(depth - 1) if depth else leaf]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: p.pop("load"), r"policy\.load is missing"),
        (lambda p: p.update(more=1), r"policy\.more is not a known field"),
        (lambda p: p.update(max_variants=0), r"policy\.max_variants must lie between"),
        (lambda p: p["load"].update(tokens=[5, 1]), r"policy\.load\.tokens must begin with the lower number"),
        (lambda p: p["load"].update(tokens=[5]), r"policy\.load\.tokens must have 2 to 2 entries"),
        (lambda p: p["load"]["routing"].update(exponent=-1), r"routing\.exponent must lie between 0 and 16"),
        (lambda p: p["load"].update(routing={"kind": "skewed"}), r"routing\.kind must be one of uniform, zipf, trace"),
        (lambda p: p["load"].update(routing={"kind": "trace", "counts": [], "histogram": {}}), "an entry for each"),
        (lambda p: p["load"].update(routing={"kind": "trace", "counts": [1], "histogram": {"3": 1}}), "powers of two"),
        (lambda p: p["load"].update(routing={"kind": "trace", "counts": [1], "histogram": {"02": 1}}), "powers of two"),
        (lambda p: p["triggers"][0].update(window={}), r"window\.seconds is missing"),
        (lambda p: p["triggers"][0].update(window={"calls": 1, "seconds": 2}), r"seconds is not a known field"),
        (lambda p: p["triggers"][0].update(window={"calls": 0}), r"window\.calls must lie between"),
        (lambda p: p["triggers"][0].update(hysteresis=1.5), r"hysteresis must lie between 0 and 1"),
        (lambda p: p["triggers"][0].update(gain=0.5), r"gain must lie between 1 and 1000"),
        (lambda p: p["triggers"][0].update(when={"op": "not", "of": []}), r"when\.op must be one of and, or"),
        (lambda p: p["triggers"][0]["when"].update(of=[]), r"when\.of must have 2 to"),
        (lambda p: p["triggers"][0]["when"]["of"][0].update(measure="load"), r"of\[0\]\.measure must be one of tokens"),
        (lambda p: p["triggers"][0]["when"]["of"][0].update(value="1"), r"of\[0\]\.value must be a finite number"),
        (lambda p: p["triggers"][0].update(when=deep(70)), "the condition is too large"),
        (lambda p: p.update(tokens=[[1, 16], [16, 20]]), r"policy\.tokens must be ranges in ascending order"),
        (lambda p: p.update(tokens=[[1]]), r"policy\.tokens\[0\] must be a list of two numbers"),
        (lambda p: p.update(capacity=[0, 1]), r"policy\.capacity must be two factors above 0"),
        (lambda p: p.update(capacity=[2]), r"policy\.capacity must have 2 to 2 entries"),
        (lambda p: p["quantise"][0].update(format="int3"), r"quantise\[0\]\.format must be one of"),
        (lambda p: p["quantise"][0].update(count=0), r"quantise\[0\]\.count must lie between"),
        (lambda p: p["page"].update(bytes=0), r"page\.bytes must lie between"),
        (lambda p: p.update(layout="a b"), r"policy\.layout is not well formed"),
    ],
)
def test_what_is_wrong_is_named(change: Change, says: str) -> None:
    of = data(policy())
    change(of["policy"])
    with pytest.raises(ArtifactError, match=says):
        Manifest.from_json(json.dumps(of).encode())


comparisons = st.builds(
    Comparison, st.sampled_from(sorted(MEASURES)), st.sampled_from(sorted(COMPARE)), st.floats(0, 100)
)
conditions: st.SearchStrategy[Condition] = st.recursive(
    comparisons,
    lambda inner: st.builds(
        Combination, st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3).map(tuple)
    ),
    max_leaves=8,
)
values = st.dictionaries(st.sampled_from(sorted(MEASURES)), st.floats(0, 100))


@given(conditions)
def test_conditions_come_back(when: Condition) -> None:
    of = Policy("Any", triggers=(Trigger(when, "text", Window(calls=1)),))
    assert Manifest.from_json(json.dumps(data(of)).encode()).policy == of


@given(conditions, values, st.floats(0, 1), st.floats(0, 1))
def test_widened_conditions_are_weaker(when: Condition, of: dict[str, float], less: float, more: float) -> None:
    less, more = sorted((less, more))
    assert when.widened(0.0) == when
    assert not when.holds(of) or when.widened(less).holds(of)
    assert not when.widened(less).holds(of) or when.widened(more).holds(of)


def test_conditions_hold() -> None:
    assert BUSY.holds({"imbalance": 1.4, "tokens": 64})
    assert not BUSY.holds({"imbalance": 1.3, "tokens": 64})
    assert not BUSY.holds({"imbalance": 1.4})
    assert BUSY.widened(0.1).holds({"imbalance": 1.2, "tokens": 58})
    assert BUSY.measures == {"imbalance", "tokens"}


@given(st.floats(0, 16), st.integers(1, 80), st.integers(1, 12))
def test_shares_of_zipf(exponent: float, experts: int, slots: int) -> None:
    shares = Zipf(exponent).shares(experts, slots)
    assert len(shares) == experts
    assert sum(shares) == pytest.approx(1)
    assert max(shares) <= 1 / min(slots, experts) * (1 + 1e-9)
    assert list(shares) == sorted(shares, reverse=True)
    free = [(rank, share) for rank, share in enumerate(shares, 1) if share < shares[0] * (1 - 1e-9) and share > 1e-300]
    for (a, of_a), (b, of_b) in pairwise(free):
        assert of_b / of_a == pytest.approx((b / a) ** -exponent)


def test_shares_of_a_trace() -> None:
    assert Observed((1, 3), ()).shares(2, 1) == (0.25, 0.75)
    assert Observed((0, 0), ()).shares(2, 1) == (0.5, 0.5)
    with pytest.raises(ValueError, match="of 2 experts, not of 3"):
        Observed((1, 3), ()).shares(3, 1)
