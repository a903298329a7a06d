"""Every router and expert of the standard library: the backward that the compiler makes agrees with torch.autograd.

The layers are f32, which the oracle computes in float64, apart from the constants of formulas,
which are f32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moec import frontend, oracle, passes
from moec.diagnostics import Source
from moec.dialect import context

from . import references
from .test_standard_library import (
    EXPERTS,
    FF,
    ROUTERS,
    D,
    E,
    Named,
    RouterCase,
    T,
    logits,
    random_tensors,
    swiglu,
    weights,
)

PIPELINE = ("canonicalize", "differentiate", "canonicalize")


@dataclass(frozen=True)
class Trained:
    """The tensors that a layer was given, what forward gave, the gradients that backward gave."""

    tensors: Named
    forward: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    seed: Tensor


def train(text: str, tensors: Callable[[Any], Named] | None = None, tokens: int = T, **highest: int) -> Trained:
    layer = frontend.load_layer_text(Source("layer.moe", "edition 1\n" + text + "\n"))
    given = tensors(layer) if tensors else random_tensors(layer, tokens, 0, highest)
    module = frontend.lower(layer, context())
    passes.run(module, passes.parse_pipeline(PIPELINE))
    arrays = {name: tensor.numpy() for name, tensor in given.items()}
    forward = oracle.run(module, arrays, "L_forward")
    np.testing.assert_array_equal(forward["y"], oracle.run(module, arrays)["y"])
    seed = torch.randn(given["x"].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    backward = oracle.run(module, {**arrays, **forward, "d.y": seed.numpy()}, "L_backward")
    return Trained(given, forward, {name.removeprefix("d."): d for name, d in backward.items()}, seed)


def check(trained: Trained, reference: Callable[[Named], Tensor], *, untrained: tuple[str, ...] = ()) -> None:
    """The gradients of every input and parameter of floats but `untrained` must be those of the reference."""
    leaves = {
        n: t.clone().requires_grad_() if t.is_floating_point() and n not in untrained else t
        for n, t in trained.tensors.items()
    }
    y = reference(leaves)
    np.testing.assert_allclose(trained.forward["y"], y.detach().numpy(), rtol=1e-6, atol=1e-6)
    y.backward(trained.seed)
    wanted = {n: t.grad for n, t in leaves.items() if t.requires_grad}
    assert set(trained.gradients) == {n for n, grad in wanted.items() if grad is not None}
    for name, grad in trained.gradients.items():
        want = wanted[name]
        assert want is not None
        largest = float(want.abs().max()) if want.numel() else 0.0
        np.testing.assert_allclose(grad, want.numpy(), rtol=1e-6, atol=1e-7 * largest, err_msg=name)


def routed(w: Named, case: RouterCase) -> Tensor:
    return references.apply(w["x"], case.gate(w, logits(w)), swiglu(w))


@pytest.mark.parametrize("case", ROUTERS, ids=lambda case: case.call)
def test_router(case: RouterCase) -> None:
    trained = train(case.text(), **case.highest)
    check(trained, lambda w: routed(w, case), untrained=("router.bias",))


@pytest.mark.parametrize(("call", "reference"), EXPERTS, ids=[call for call, _ in EXPERTS])
@pytest.mark.parametrize("place", ["routed", "shared"])
def test_expert(call: str, reference: Callable[[Named, Tensor], Tensor], place: str) -> None:
    group = call if place == "routed" else "swiglu(d, ff)"
    shared = f"shared common[2] = {call} : f32" if place == "shared" else ""
    trained = train(f"""layer L(d = {D}, ff = {FF}) {{
  router softmax_top(2) : f32
  experts routed[{E}] = {group} : f32
  {shared}
  tokens dropless
}}""")

    def layer(w: Named) -> Tensor:
        gate = references.top_k_softmax(w["x"] @ w["router.logits.weight"].T, 2, renorm=True)
        if place == "routed":
            return references.apply(w["x"], gate, lambda e, x: reference(weights(w, "routed", e), x))
        y = references.apply(w["x"], gate, swiglu(w))
        return y + sum(reference(weights(w, "common", e), w["x"]) for e in range(2))

    check(trained, layer)


@pytest.mark.parametrize("order", ["token", "choice", "score"])
def test_dropped_slots_have_no_gradient(order: str) -> None:
    trained = train(f"""layer L(d = {D}, ff = {FF}) {{
  router softmax_top(2) : f32
  experts routed[{E}] = swiglu(d, ff) : f32
  tokens capacity(0.5, order = {order})
}}""")

    def layer(w: Named) -> Tensor:
        logits = w["x"] @ w["router.logits.weight"].T
        gate = references.top_k_softmax(logits, 2, renorm=True)
        rank = logits.argsort(-1, descending=True).argsort(-1)
        kept = references.capacity(gate.detach(), rank, -(-T * 2 // (2 * E)), order)
        return references.apply(w["x"], gate * (kept != 0), swiglu(w))

    check(trained, layer)


def test_a_wrong_reference_is_seen() -> None:
    case = ROUTERS[0]
    trained = train(case.text())
    check(trained, lambda w: routed(w, case))
    with pytest.raises(AssertionError):
        check(trained, lambda w: routed(w, case) + 1e-3 * F.silu(w["x"]))
