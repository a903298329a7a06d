"""The bench's own reference, inputs and routes: what everything is compared with must be right itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.formats import FORMATS
from bench.layer import Layer, relative_error
from bench.routes import ROUTES
from bench.routes.moec_layer import state_dict
from bench.shapes import SHAPES, Shape

TINY = replace(SHAPES["olmoe"], name="tiny", d=48, ff=32, experts=6, top_k=2)
WITH_SHARED = replace(TINY, shared=2, renormalise=True)


@pytest.mark.parametrize("shape", [TINY, WITH_SHARED], ids=["plain", "shared"])
@pytest.mark.parametrize("route", ["loop", "grouped_mm"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("f32", 1e-5), ("bf16", 3e-2)])
def test_routes_compute_the_reference(shape: Shape, route: str, dtype: str, tolerance: float) -> None:
    layer = Layer(shape, seed=3)
    (x,) = layer.inputs(9, 1, "uniform")
    y = ROUTES[route].build(layer, dtype)(x.to(torch.float32 if dtype == "f32" else torch.bfloat16))
    assert relative_error(y, layer.reference(x)) < tolerance


def test_reference_is_the_sum_over_picked_experts_token_by_token() -> None:
    layer = Layer(WITH_SHARED, seed=5)
    (x,) = layer.inputs(4, 1, "uniform")
    w = {name: value.double() for name, value in layer.weights("bf16").items()}
    silu = torch.nn.functional.silu
    for token, y in zip(x.double(), layer.reference(x), strict=True):
        p = torch.softmax(w["router"] @ token, 0)
        picks = p.argsort(descending=True)[: WITH_SHARED.top_k]
        expected = torch.zeros_like(token)
        for e in picks:
            gate, up = w["gate_up"][e, : TINY.ff] @ token, w["gate_up"][e, TINY.ff :] @ token
            expected += p[e] / p[picks].sum() * (w["down"][e] @ (silu(gate) * up))
        wide = WITH_SHARED.shared * WITH_SHARED.ff
        gate, up = w["shared_gate_up"][:wide] @ token, w["shared_gate_up"][wide:] @ token
        expected += w["shared_down"] @ (silu(gate) * up)
        torch.testing.assert_close(y, expected)


def test_names_of_the_file_hold_the_same_weights() -> None:
    layer = Layer(WITH_SHARED, seed=5)
    state, w = state_dict(layer, "f32"), layer.weights("f32")
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "router.logits.weight": (6, 48),
        "routed.gate.weight": (6, 32, 48),
        "routed.up.weight": (6, 32, 48),
        "routed.down.weight": (6, 48, 32),
        "common.gate.weight": (2, 32, 48),
        "common.up.weight": (2, 32, 48),
        "common.down.weight": (2, 48, 32),
    }
    x = torch.randn(48)
    gate, up = w["shared_gate_up"].chunk(2)
    fused = w["shared_down"] @ (torch.sigmoid(gate @ x) * (up @ x))
    apart = sum(
        state["common.down.weight"][e]
        @ (torch.sigmoid(state["common.gate.weight"][e] @ x) * (state["common.up.weight"][e] @ x))
        for e in range(2)
    )
    torch.testing.assert_close(fused, apart)


@pytest.mark.parametrize("routing", ["uniform", "zipf"])
def test_inputs_are_exact_in_bf16_and_spread_as_named(routing: str) -> None:
    layer = Layer(replace(TINY, d=64, experts=16))
    (x,) = layer.inputs(600, 1, routing)
    assert torch.equal(x, x.bfloat16().float())
    logits = x.double() @ layer.weights("bf16")["router"].double().T
    share = torch.bincount(logits.topk(2, -1).indices.flatten(), minlength=16).double() / 1200
    if routing == "uniform":
        assert share.max() < 2 / 16
    else:
        assert share.max() > 4 / 16


def test_one_expert_has_every_token() -> None:
    layer = Layer(replace(TINY, d=64, experts=16))
    (x,) = layer.inputs(200, 1, "one")
    counts = torch.bincount(layer.route(x)[1].flatten(), minlength=16)
    assert counts.max() == 200
    assert counts.sort().values[-2] < 60


def test_few_experts_have_the_tokens() -> None:
    layer = Layer(replace(TINY, d=256, experts=128, top_k=8))
    (x,) = layer.inputs(300, 1, "few")
    assert layer.route(x)[1].unique().numel() == 28


def test_counts_of_work() -> None:
    layer = Layer(TINY)
    x = layer.inputs(1, 1, "uniform")
    per_expert = 3 * 48 * 32
    assert layer.flop(5) == 2 * 5 * (2 * per_expert + 6 * 48)
    assert layer.touched_bytes(x, FORMATS["bf16"]) == 2 * (2 * per_expert + 6 * 48)
