"""A manifest is believed only as far as it is well formed, and what is wrong is named by its place."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.artifact.adoption import Adoption
from moec.artifact.manifest import Manifest, Weight
from moec.errors import ArtifactError, MoecError, NewerSchema
from tests.artifact.samples import manifest, quantised, training

Change = Callable[[dict[str, Any]], object]


def test_comes_back() -> None:
    assert Manifest.from_json(manifest().to_json()) == manifest()


def test_training_comes_back() -> None:
    trainable = replace(manifest(), training=training())
    assert Manifest.from_json(trainable.to_json()) == trainable
    assert "training" not in json.loads(manifest().to_json())


ADOPTION = {"layout": "0123456789abcdef", "steps": 4, "scratch": 4096, "shared": 512}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("losses"), r"training\.losses is missing"),
        (lambda t: t.update(more=1), r"training\.more is not a known field"),
        (lambda t: t["step"][0].update(role="input"), r"training\.step\[0\]\.role must be one of loss, saved"),
        (lambda t: t["step"][0].update(rows=-1), r"training\.step\[0\]\.rows must lie between"),
        (lambda t: t["step"][2].update(name="probability"), r"training\.step: 'probability' stands there twice"),
        (lambda t: t["losses"][0].update(weight=1e999), r"training\.losses\[0\]\.weight must be a finite number"),
        (lambda t: t["losses"][0].update(weight=10**400), r"training\.losses\[0\]\.weight must be a finite number"),
        (lambda t: t["losses"][0].update(weight=True), r"training\.losses\[0\]\.weight must be a finite number"),
        (lambda t: t["losses"][0].update(kind="l2"), r"training\.losses\[0\]\.kind must be one of balance, z"),
        (lambda t: t["losses"][0].update(kind="z"), r"training\.step: the loss 'z' is computed from z"),
        (lambda t: t["gradients"].append("task"), "'task' is no input or parameter of floats"),
        (lambda t: t["gradients"].append("x"), r"training\.gradients: 'x' stands there twice"),
    ],
)
def test_what_is_wrong_with_training_is_named(change: Change, says: str) -> None:
    data = json.loads(replace(manifest(), training=training()).to_json())
    change(data["training"])
    with pytest.raises(ArtifactError, match=says):
        Manifest.from_json(json.dumps(data).encode())


def test_quantised_comes_back() -> None:
    assert Manifest.from_json(quantised().to_json()) == quantised()
    assert "quantised" not in json.loads(manifest().to_json())
    of_it = quantised().quantised
    assert of_it is not None
    assert set(of_it.made_while_packing) == {"routed.up.weight"}
    assert set(of_it.codes) == {"common.up.weight", "common.down.weight"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda q: q.pop("rows"), r"quantised\.rows is missing"),
        (lambda q: q.update(rows="int4"), r"quantised\.rows must be one of float, int8"),
        (lambda q: q.update(stored=[]), r"quantised\.stored must have 1 to"),
        (lambda q: q.update(more=1), r"quantised\.more is not a known field"),
        (lambda q: q["stored"][0].update(format="int3"), r"stored\[0\]\.format must be one of int8, int4, ternary"),
        (lambda q: q["stored"][0].update(scale="i32"), r"stored\[0\]\.scale must be one of f32, bf16"),
        (lambda q: q["stored"][0].update(group=0), r"stored\[0\]\.group must lie between"),
        (lambda q: q["stored"][0].update(group=5), "groups of 5 do not divide 'routed.up.weight'"),
        (lambda q: q["stored"][0].update(experts=[8]), "'routed.up.weight' has 8 experts"),
        (lambda q: q["stored"][0].update(experts=[-1]), r"stored\[0\]\.experts\[0\] must lie between"),
        (lambda q: q["stored"][0].update(weights=[]), r"stored\[0\]\.weights must be names"),
        (lambda q: q["stored"][0].update(weights=["a b"]), r"stored\[0\]\.weights must be names"),
        (lambda q: q["stored"][0].update(weights=["up.weight"]), "no parameter 'up.weight'"),
        (lambda q: q["stored"][0].update(weights=["router.bias"]), r"'router.bias' of f32\[8\] cannot be stored so"),
        (lambda q: q["stored"][0].pop("experts"), r"stored\[0\]\.experts is missing"),
        (lambda q: q["stored"][1].update(scales=[]), "'common.up.weight' of i8 has no format"),
        (lambda q: q["stored"][1]["scales"].pop(), r"stored\[1\] has 2 weights and 1 scales"),
        (lambda q: q["stored"][1]["scales"].reverse(), "cannot hold the scales of 'common.up.weight'"),
        (lambda q: q["stored"].pop(), "'common.up.weight' of i8 has no format"),
    ],
)
def test_what_is_wrong_with_quantised_is_named(change: Change, says: str) -> None:
    data = json.loads(quantised().to_json())
    change(data["quantised"])
    with pytest.raises(ArtifactError, match=says):
        Manifest.from_json(json.dumps(data).encode())


@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_calls_have_no_codes(where: str) -> None:
    data = json.loads(manifest().to_json())
    data[where][0]["dtype"] = "i8"
    with pytest.raises(ArtifactError, match=r"\[0\]\.dtype must be one of f32, bf16, f16, i32"):
        Manifest.from_json(json.dumps(data).encode())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m["variants"][0].pop("layout"), r"variants\[0\]\.layout is missing"),
        (lambda m: m["variants"][0].update(layout="xyz"), r"variants\[0\]\.layout is not well formed"),
        (lambda m: m["variants"][0]["regions"][0].update(offset=-1), r"regions\[0\]\.offset must lie between"),
        (lambda m: m["variants"][0]["regions"][0].update(stride=0), r"regions\[0\]\.stride must lie between"),
        (
            lambda m: m["variants"][0]["regions"][0].update(experts=[8]),
            "there are 8 routed experts, none with number 8",
        ),
        (lambda m: m["variants"][0]["regions"].append(m["variants"][0]["regions"][0]), "overlap or do not ascend"),
        (
            lambda m: m["variants"][0].update(adoption={**ADOPTION, "steps": 0}),
            r"adoption\.steps must lie between",
        ),
        (
            lambda m: m["variants"][0].update(adoption={**ADOPTION, "layout": "L"}),
            r"adoption\.layout is not well formed",
        ),
        (lambda m: m["statistics"][0].update(name="lost"), r"statistics\[0\]\.name must be one of chosen, kept"),
        (lambda m: m["statistics"][0].update(slots=0), r"statistics\[0\]\.slots must"),
        (lambda m: m["statistics"][0].update(row=[]), r"statistics\[0\]\.row must be one number"),
        (lambda m: m["statistics"][1].update(name="chosen"), "statistics: 'chosen' stands there twice"),
        (lambda m: m.pop("statistics"), "statistics is missing"),
        (lambda m: m.update(abi=1), r"abi 1\); this moec reads schema 3, abi 2"),
    ],
)
def test_what_is_wrong_with_variants_and_statistics_is_named(change: Change, says: str) -> None:
    data = json.loads(manifest().to_json())
    change(data)
    with pytest.raises(ArtifactError, match=says):
        Manifest.from_json(json.dumps(data).encode())


def test_says_how_packed_weights_are_taken_over() -> None:
    data = json.loads(manifest().to_json())
    assert "adoption" not in data["variants"][0]
    data["variants"][0]["adoption"] = ADOPTION
    read = Manifest.from_json(json.dumps(data).encode())
    assert read.variants[0].adoption == Adoption("0123456789abcdef", 4, 4096, 512)
    assert json.loads(read.to_json()) == data


def test_follows_the_documented_form() -> None:
    data = json.loads(manifest().to_json())
    assert data["schema"] == 3
    assert data["abi"] == 2
    assert data["inputs"] == [
        {"name": "x", "dtype": "bf16", "shape": ["T", 32]},
        {"name": "task", "dtype": "i32", "shape": ["T"]},
    ]
    assert data["variants"][0] == {
        "name": "avx512",
        "features": ["avx512f"],
        "layout": "0123456789abcdef",
        "regions": [{"offset": 64, "stride": 512, "experts": [0, 1, 2, 3, 4, 5, 6, 7]}],
    }
    assert data["statistics"][0] == {"name": "chosen", "experts": "routed", "slots": 2, "row": [8]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.pop("layer"), "layer is missing"),
        (lambda d: d.update(extra=1), "extra is not a known field"),
        (lambda d: d.update(layer="a b"), "layer is not well formed: 'a b'"),
        (lambda d: d.update(layer=3), "layer must be a string, not a number"),
        (lambda d: d.update(schema="1"), "schema must be an integer, not a string"),
        (lambda d: d.update(schema=0), "schema must lie between"),
        (lambda d: d.update(schema=True), "schema must be an integer, not a boolean"),
        (lambda d: d.update(options=[]), "options must be an object, not a list"),
        (lambda d: d.update(variants=[]), "variants must have 1 to 62 entries, not 0"),
        (lambda d: d["variants"].append(d["variants"][0]), "variants: 'avx512' stands there twice"),
        (lambda d: d["source"].update(sha256="AB"), r"source\.sha256 is not well formed"),
        (lambda d: d["inputs"][0].update(dtype="f8"), r"inputs\[0\]\.dtype must be one of f32, .*i32, not 'f8'"),
        (lambda d: d["inputs"][0].update(dtype={}), r"inputs\[0\]\.dtype must be one of"),
        (lambda d: d["inputs"][0].update(shape=[32]), r"inputs\[0\]\.shape must begin with 'T'"),
        (lambda d: d["outputs"][0].update(name="x"), "inputs and outputs: 'x' stands there twice"),
        (lambda d: d["parameters"][2].update(shape=[0]), r"parameters\[2\]\.shape\[0\] must lie between"),
        (lambda d: d["parameters"][2].update(shape=[2**40, 2**40]), "would take"),
        (lambda d: d["parameters"][2].update(shape=[1] * 9), r"parameters\[2\]\.shape must have 0 to 8 entries"),
        (lambda d: d["parameters"][2].update(name="a..b"), r"parameters\[2\]\.name is not well formed"),
        (lambda d: d["parameters"][2].update(role="state"), r"parameters\[2\]\.role must be one of"),
        (lambda d: d["guarantees"].update(isolated=1), r"guarantees\.isolated must be true or false, not a number"),
        (lambda d: d.update(compiler="\x1b[2J"), "compiler must be printable"),
    ],
)
def test_what_is_wrong_is_named(change: Change, says: str) -> None:
    data = json.loads(manifest().to_json())
    change(data)
    with pytest.raises(ArtifactError, match=says):
        Manifest.from_json(json.dumps(data).encode())


@pytest.mark.parametrize("change", [{"schema": 4}, {"abi": 3}, {"schema": 9, "layer": "unknown form"}])
def test_newer(change: dict[str, Any]) -> None:
    data = json.loads(manifest().to_json()) | change
    with pytest.raises(NewerSchema, match=r"written by moec 0\.1\.0"):
        Manifest.from_json(json.dumps(data).encode())


def test_a_weight_inside_a_weight() -> None:
    inner = Weight("router.bias.more", (2,), "f32", "buffer")
    with pytest.raises(ArtifactError, match=r"'router\.bias\.more' lies inside the parameter 'router\.bias'"):
        Manifest.from_json(replace(manifest(), parameters=(*manifest().parameters, inner)).to_json())


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"nul", b"\xff", b"[" * 100_000, b'{"schema": ' + b"9" * 5000 + b"}"]
)
def test_not_json(text: bytes) -> None:
    with pytest.raises(ArtifactError):
        Manifest.from_json(text)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_any_value_anywhere_is_taken_or_refused(draw: st.DataObject) -> None:
    data: Any = json.loads(manifest().to_json())
    place: Any = data
    while isinstance(place, dict | list) and place:
        key = draw.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or draw.draw(st.booleans()):
            place[key] = draw.draw(_json)
            break
        place = place[key]
    with contextlib.suppress(MoecError):  # the only kind of error there may be
        Manifest.from_json(json.dumps(data).encode())
