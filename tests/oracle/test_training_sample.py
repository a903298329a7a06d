"""The training functions written by hand in tests/ir agree with torch.autograd."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moec import oracle
from moec.dialect import context
from moec.oracle.scalars import round_bf16
from moec.pipeline.ir_text import parse

from . import references

SAMPLE = Path(__file__).parent.parent / "ir" / "training_sample.mlir"
SHAPES = {
    "router.logits.weight": (6, 24),
    "routed.gate.weight": (6, 10, 24),
    "routed.up.weight": (6, 10, 24),
    "routed.down.weight": (6, 24, 10),
}


def layer(x: Tensor, w: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """(y, probability, z)."""
    logits = x @ w["router.logits.weight"].T
    gate = references.top_k_softmax(logits, 2, renorm=False)
    names = ("gate", "up", "down")
    y = references.apply(x, gate, lambda e, x: references.glu(x, *(w[f"routed.{n}.weight"][e] for n in names), F.silu))
    return y, logits.softmax(-1), logits.logsumexp(-1, keepdim=True) ** 2


@pytest.mark.parametrize("tokens", [0, 1, 13])
def test_sample(tokens: int) -> None:
    module = parse(SAMPLE.read_text(), "sample", context())
    rng = np.random.default_rng(tokens)
    given = {n: round_bf16(rng.standard_normal(s)) for n, s in {"x": (tokens, 24), **SHAPES}.items()}
    seeds = {n: round_bf16(rng.standard_normal((tokens, m))) for n, m in (("y", 24), ("probability", 6), ("z", 1))}

    forward = oracle.run(module, given, "Small_forward")
    inference = oracle.run(module, given)
    np.testing.assert_array_equal(forward["y"], inference["y"])
    assert forward["count"].sum() == 2 * tokens
    backward = oracle.run(module, {**given, **forward, **{f"d.{n}": v for n, v in seeds.items()}}, "Small_backward")

    leaves = {n: torch.from_numpy(v).requires_grad_() for n, v in given.items()}
    if tokens:
        results = layer(leaves["x"], leaves)
        torch.autograd.backward(results, [torch.from_numpy(seeds[n]) for n in ("y", "probability", "z")])
    for name, leaf in leaves.items():
        want = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        close = 0.02 * max(1.0, float(want.abs().max()) if want.numel() else 0.0)  # bf16 between kernels
        np.testing.assert_allclose(backward[f"d.{name}"], want.numpy(), rtol=0, atol=close, err_msg=name)
