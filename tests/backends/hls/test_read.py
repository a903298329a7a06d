"""Which layers become fixed-point layers, what is read of them, and why others are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from moec.backends.base import Unsupported
from moec.backends.hls.read import Read, read
from moec.fixed.interface import Group, Source, agrees, shapes
from moec.fixed.spec import Activation, Expert, Router, Score, Weights
from moec.pipeline.driver import Compilation


@pytest.fixture
def of(tmp_path: Path):
    def compiled(text: str) -> Read:
        path = tmp_path / "layer.moe"
        path.write_text(f"edition 1\n{text}")
        return read(Compilation(path).graph)

    return compiled


def layer(router: str = "switch()", expert: str = "mlp_relu(d, ff) : bf16", more: str = "") -> str:
    return f"layer C(d = 8, ff = 12) {{\n  router {router}\n  experts routed[4] = {expert}\n{more}\n}}\n"


def routes(**given: object) -> Router:
    plain = {"score": Score.SOFTMAX, "over": "all", "bias": False, "selection": False}
    return Router(**{**plain, "slots": 2, "renorm": False, "scale": 1.0, "tasks": 1, **given})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("switch()", routes(slots=1)),
        ("softmax_top(3)", routes(slots=3, renorm=True)),
        ("softmax_top(3, renorm = false)", routes(slots=3)),
        ("gshard_top2()", routes(renorm=True)),
        ("qwen_moe(2)", routes()),
        ("deepseek_moe(2, scale = 2.0)", routes(scale=2.0)),
        ("mixtral(2)", routes(over="chosen")),
        ("sigmoid_top(2)", routes(score=Score.SIGMOID, renorm=True)),
        ("sigma_moe(2)", routes(score=Score.SIGMOID)),
        (
            "deepseek_v3(2, groups = 1, top_groups = 1)",
            routes(score=Score.SIGMOID, selection=True, renorm=True, scale=2.5),
        ),
        ("task_moe(2, tasks = 3)", routes(renorm=True, tasks=3)),
    ],
)
def test_routers_of_the_library_are_read(of, text: str, expected: Router) -> None:
    assert of(layer(text)).layer.router == expected


def test_routers_that_a_file_defines_are_read(of) -> None:
    text = """router own(k) {
  logits = linear(x, count, bias = true)
  pick   = top_k(logits, k)
  weight = 0.5 * (2 * logits)
}
router shares(k) {
  logits = linear(x, count)
  p      = softmax(logits)
  pick   = top_k(logits, k)
  chosen_p = p over pick
  weight = 3 * (chosen_p / sum(chosen_p))
}
"""
    got = of(text + layer("own(2)"))
    assert got.layer.router == routes(score=Score.IDENTITY, bias=True)
    assert got.interface.router == Source("router.logits.weight", None, "router.logits.bias")
    assert of(text + layer("shares(2)")).layer.router == routes(renorm=True, scale=3.0)


@pytest.mark.parametrize(
    ("text", "shape", "weights"),
    [
        ("mlp_relu(d, ff) : f32", Expert(12, Activation.RELU, False, False), Weights.FIXED16),
        ("mlp_gelu(d, ff, bias = true) : bf16", Expert(12, Activation.GELU, False, True), Weights.FIXED16),
        ("swiglu(d, ff) : int8(per = channel)", Expert(12, Activation.SILU, True, False), Weights.INT8),
        ("geglu(d, ff) : int4(per = channel)", Expert(12, Activation.GELU, True, False), Weights.INT4),
        ("swiglu(d, ff) : ternary(per = channel)", Expert(12, Activation.SILU, True, False), Weights.TERNARY),
    ],
)
def test_experts_are_read(of, text: str, shape: Expert, weights: Weights) -> None:
    for more in ("", "  approx rows as int8" if weights is not Weights.FIXED16 else ""):
        got = of(layer(expert=text, more=more)).layer
        assert (got.routed, got.weights, got.width, got.experts) == (shape, weights, 8, 4)


def test_the_interface_names_what_numbers_come_from(of) -> None:
    shared = (
        "  shared common[2] = swiglu(d, ff) : int8(per = channel)\n  shared more = swiglu(d, ff) : int8(per = channel)"
    )
    text = layer(
        "deepseek_v3(2, groups = 1, top_groups = 1)", "swiglu(d, ff) : int8(per = channel, prequantized = true)"
    )
    got = of(text.replace("\n\n", f"\n{shared}\n"))
    face = got.interface
    assert (face.task, face.selection) == (None, "router.bias")
    assert face.routed == Group(
        4, *(Source(f"routed.{n}.weight", f"routed.{n}.scale", None) for n in ("gate", "up", "down"))
    )
    assert [group.count for group in face.shared] == [2, 1]
    assert face.shared[1].down == Source("more.down.weight", None, None)
    assert got.layer.shared == 3
    assert got.layer.common == got.layer.routed
    named = shapes(got.layer, face)
    assert named["routed.gate.weight"] == (4, 12, 8)
    assert named["routed.gate.scale"] == (4, 12)
    assert named["common.down.weight"] == (2, 8, 12)
    assert named["router.bias"] == (4,)
    assert agrees(got.layer, face)


def test_tasks_are_an_input(of) -> None:
    assert of(layer("task_moe(2, tasks = 3)")).interface.task == "task"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (layer("moge(2, 2)"), "the K largest of all scores"),
        (layer("top_p(0.5, 2)"), "the K largest of all scores"),
        (layer("adamoe(2, nulls = 1)"), "the K largest of all scores"),
        (layer("hash(10)"), "the K largest of all scores"),
        (layer("deepseek_v3(2, groups = 2, top_groups = 1)"), "choice within groups"),
        (layer(expert="gated_swiglu(d, ff) : bf16"), "the result is not a linear"),
        (layer(expert="clamped_swiglu(d, ff) : bf16"), "hidden layer is relu, gelu, silu"),
        (layer(expert="swiglu(d, ff) : int4(group = 4)"), "3 scales a channel"),
        (layer(expert="swiglu(d, ff) : f16"), "`x` is f16"),
        (layer(router="switch() : f16"), "`router.logits.weight` is f16"),
        (layer(more="  tokens capacity(1.25, overflow = drop)"), "every chosen expert is computed"),
        (layer(more="  shared one = mlp_gelu(d, ff) : bf16"), "different activations"),
        (layer(more="  shared one = mlp_relu(d, ff) : int8(per = channel)"), "one array of multipliers"),
        (layer(more="  shared one = mlp_relu(d, 4) : bf16\n  shared two = mlp_relu(d, ff) : bf16"), "one shape"),
        (layer(expert="swiglu(d, ff) : fp8_e4m3(per = channel)"), "multiplies codes that are whole numbers"),
        (
            layer(expert="swiglu(d, ff) : int8(per = channel)", more="  quantize experts(routed, 1) as ternary"),
            "all routed experts have one format",
        ),
        (
            "router two(k) {\n  p = softmax(linear(x, count))\n  pick = top_k(p, k)\n  weight = sqrt(p)\n}\n"
            + layer("two(2)"),
            "chosen by something else than the scores that weigh them",
        ),
        (
            "router two(k) {\n  p = softmax(tanh(linear(x, count)))\n  pick = top_k(p, k)\n  weight = p\n}\n"
            + layer("two(2)"),
            "logits are no linear",
        ),
        (
            "router two(k) {\n  p = softmax(linear(x, count))\n  pick = top_k(p, k)\n  weight = -1 * p\n}\n"
            + layer("two(2)"),
            "scaled by -1",
        ),
    ],
)
def test_what_hardware_does_not_have_is_refused_with_its_place(of, text: str, why: str) -> None:
    with pytest.raises(Unsupported) as refusal:
        of(text)
    assert why in str(refusal.value)
    assert '.moe":' in str(refusal.value)
