"""The manifest's `parallel`: it comes back, and nothing in it is believed unchecked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.artifact.manifest import Manifest
from moec.artifact.parallel import (
    Overlap,
    Parallel,
    Pin,
    Replicate,
    Require,
    Sends,
    Sharding,
)
from moec.errors import ArtifactError
from moec.schedule.mesh import Axis, Mesh
from tests.artifact.samples import manifest

Change = Callable[[dict[str, Any]], object]

POD = Mesh("Pod", (Axis("node", 2, 1.25e8, 5e-5), Axis("gpu", 2, 1e10)), 2**33, 1e11)


def plain() -> Parallel:
    """Eight experts on four positions, two at each."""
    holders = tuple((expert // 2,) for expert in range(8))
    return Parallel("Serve", POD, ("node", "gpu"), Sharding("routed", ("node", "gpu")), 2, holders)


def full() -> Parallel:
    return replace(
        plain(),
        routed=Sharding("routed", ("node",), ("gpu",), (3, 5)),
        slots=6,
        holders=((0,), (0,), (0,), (0, 1), (1,), (1,), (1,), (1,)),
        shared=(Sharding("common", (), ("gpu",)), Sharding("other")),
        overlap=Overlap(("dispatch", "combine"), True, 2),
        sends=Sends("bf16", "int8"),
        partial="node",
        replicate=(Replicate(2, (3,), 1),),
        pins=(Pin((0, 1), "node", 0),),
        requires=(Require("memory", "<=", 2.0**31), Require("exchange", "<", 0.4)),
    )


def data(of: Parallel) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(replace(manifest(), parallel=of).to_json())
    return loaded


def test_comes_back() -> None:
    for one in (plain(), full(), replace(full(), overlap=None, mesh=replace(POD, memory=None, flops=None))):
        assert Manifest.from_json(json.dumps(data(one)).encode()).parallel == one
    assert "parallel" not in json.loads(manifest().to_json())


def test_follows_the_documented_form() -> None:
    of = data(full())["parallel"]
    assert of["mesh"]["axes"][0] == {"name": "node", "size": 2, "bandwidth": 1.25e8, "latency": 5e-5}
    assert of["mesh"]["axes"][1]["latency"] is None
    assert of["routed"] == {"experts": "routed", "ep": ["node"], "tp": ["gpu"], "counts": [3, 5]}
    assert of["holders"][3] == [0, 1]
    assert of["sends"] == {"dispatch": "bf16", "combine": "int8"}


def test_positions() -> None:
    assert full().positions == 2
    assert [full().position(rank) for rank in range(4)] == [0, 0, 1, 1]
    assert full().held(0) == (0, 1, 2, 3)
    assert full().held(1) == (3, 4, 5, 6, 7)


def test_exact() -> None:
    assert plain().exact
    assert not full().exact
    assert not replace(plain(), partial="gpu").exact
    assert not replace(plain(), sends=Sends(combine="bf16")).exact
    assert not replace(plain(), shared=(Sharding("common", (), ("gpu",)),)).exact


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: p.pop("mesh"), r"parallel\.mesh is missing"),
        (lambda p: p.update(more=1), r"parallel\.more is not a known field"),
        (lambda p: p["mesh"]["axes"][1].update(name="node"), r"axes: two have one name"),
        (lambda p: p["mesh"]["axes"][1].update(size=2**16 + 1), r"axes\[1\]\.size must lie between"),
        (lambda p: p["mesh"]["axes"][0].update(size=2**16, bandwidth=0), r"axes\[0\]\.bandwidth must lie between"),
        (lambda p: [a.update(size=2**16) for a in p["mesh"]["axes"]], r"there may be 1048576 devices"),
        (lambda p: p.update(tokens=["gpu", "node"]), r"parallel\.tokens must be axes of the mesh, outermost first"),
        (lambda p: p.update(tokens=["rack"]), r"parallel\.tokens must be axes of the mesh"),
        (lambda p: p["routed"].update(tp=["node"]), "cut over an axis twice"),
        (lambda p: p["shared"][0].update(ep=["node"]), "they have no `ep`"),
        (lambda p: p.update(partial="gpu"), r"partial must be an axis of routed\.ep"),
        (lambda p: p["holders"].__setitem__(0, []), r"holders\[0\] must be a list of 1 to"),
        (lambda p: p["holders"].__setitem__(0, [1, 0]), r"holders\[0\] must be in ascending order"),
        (lambda p: p["holders"].__setitem__(0, [2]), r"holders\[0\]: there are 2 positions"),
        (lambda p: p.update(slots=4), r"slots: position 1 holds 5 experts"),
        (lambda p: p["routed"].update(counts=[4, 5]), r"counts must be 2 numbers whose sum is 8"),
        (lambda p: p["routed"].update(counts=[8]), r"counts must be 2 numbers whose sum is 8"),
        (lambda p: p["overlap"].update(directions=["dispatch", "dispatch"]), "name each exchange once"),
        (lambda p: p["overlap"].update(directions=["there"]), "must be of dispatch, combine"),
        (lambda p: p["overlap"].update(chunks=0), r"overlap\.chunks must lie between"),
        (lambda p: p["sends"].update(dispatch="f64"), r"sends\.dispatch must be one of"),
        (lambda p: p["pins"][0].update(experts=[8]), r"pins\[0\]: there are 8 experts"),
        (lambda p: p["pins"][0].update(axis="gpu"), r"pins\[0\] must be a position"),
        (lambda p: p["pins"][0].update(index=2), r"pins\[0\] must be a position"),
        (lambda p: p["replicate"][0].update(experts=[9]), r"replicate\[0\]: there are 8 experts"),
        (lambda p: p["requires"][0].update(measure="cost"), r"requires\[0\]\.measure must be one of"),
        (lambda p: p["routed"].update(experts="others"), r"there are 8 routed experts, `routed`"),
        (lambda p: p["holders"].append([1]) or p.update(slots=9) or p["routed"].update(counts=None), "are 8 routed"),
    ],
)
def test_what_is_wrong_is_named(change: Change, says: str) -> None:
    of = data(full())
    change(of["parallel"])
    with pytest.raises(ArtifactError, match=says):
        Manifest.from_json(json.dumps(of).encode())


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.sampled_from(["node", "routed", "bf16", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["at", "name"]), inner, max_size=2),
    max_leaves=6,
)


@given(st.sampled_from(sorted(data(full())["parallel"])), JUNK)
def test_any_field_may_be_anything(name: str, junk: Any) -> None:
    of = data(full())
    of["parallel"][name] = junk
    try:
        read = Manifest.from_json(json.dumps(of).encode())
    except ArtifactError:
        return
    assert Manifest.from_json(read.to_json()) == read
