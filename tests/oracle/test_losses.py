"""What auxiliary losses are computed from, and the gradients through it, against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from moec import frontend, oracle, passes
from moec.diagnostics import Source
from moec.dialect import context

from .test_gradients import PIPELINE
from .test_standard_library import FF, ROUTERS, D, E, Named, RouterCase, T, random_tensors

BALANCED = [case for case in ROUTERS if not case.call.startswith(("adamoe", "hash"))]


def z(logits: Tensor) -> Tensor:
    return logits.logsumexp(-1, keepdim=True) ** 2


def own_logits(w: Named) -> Tensor:
    if "task" in w:
        return (w["x"] @ w["router.gates.weight"].T).view(len(w["x"]), -1, E)[torch.arange(len(w["x"])), w["task"]]
    return w["x"] @ w["router.logits.weight"].T


def probability(case: RouterCase, logits: Tensor) -> Tensor:
    if case.call.startswith(("sigmoid_top", "deepseek_v3", "sigma_moe")):
        return logits.sigmoid() / logits.sigmoid().sum(-1, keepdim=True)
    return logits.softmax(-1)


@pytest.mark.parametrize("case", BALANCED, ids=lambda case: case.call)
def test_loss_tensors_and_their_gradients(case: RouterCase) -> None:
    text = case.text().replace("tokens dropless", "tokens capacity(0.5)\n  loss balance(0.01)\n  loss z(0.001)")
    layer = frontend.load_layer_text(Source("layer.moe", f"edition 1\n{text}\n"))
    tensors = random_tensors(layer, T, 3, case.highest)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    module = frontend.lower(layer, context())
    passes.run(module, passes.parse_pipeline(PIPELINE))
    forward = oracle.run(module, arrays, "L_forward")

    leaves = {n: t.clone().requires_grad_() if t.is_floating_point() else t for n, t in tensors.items()}
    wanted = {"probability": probability(case, own_logits(leaves)), "z": z(own_logits(leaves))}
    for name, want in wanted.items():
        np.testing.assert_allclose(forward[name], want.detach().numpy(), rtol=1e-9, err_msg=name)
    chosen = case.gate(tensors, own_logits(tensors) if "task" not in tensors else all_logits(tensors)) != 0
    np.testing.assert_array_equal(forward["count"], chosen.sum(0).numpy())

    rng = np.random.default_rng(0)
    seeds = {name: rng.standard_normal(want.shape) for name, want in wanted.items()}
    none = {"d.y": np.zeros((T, D))}
    given = {**arrays, **forward, **none, **{f"d.{name}": d for name, d in seeds.items()}}
    gradients = oracle.run(module, given, "L_backward")
    torch.autograd.backward(list(wanted.values()), [torch.from_numpy(seeds[name]) for name in wanted])
    for name, leaf in leaves.items():
        if leaf.requires_grad and name != "router.bias":
            want = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            np.testing.assert_allclose(gradients[f"d.{name}"], want.numpy(), rtol=1e-6, atol=1e-9, err_msg=name)


def all_logits(w: Named) -> Tensor:
    return w["x"] @ w["router.gates.weight"].T


def test_the_layer_itself_computes_no_losses() -> None:
    text = f"""edition 1
layer L(d = {D}, ff = {FF}) {{
  router softmax_top(2)
  experts routed[{E}] = swiglu(d, ff)
  loss balance(0.01, over = global)
}}
"""
    module = frontend.lower(frontend.load_layer_text(Source("layer.moe", text)), context())
    assert "probability" in str(module)
    passes.run(module, passes.parse_pipeline(passes.DEFAULT_PIPELINE))
    assert "probability" not in str(module.body)
    assert str(module.body).count("moe.count") == 1  # of the load, which every layer tells
