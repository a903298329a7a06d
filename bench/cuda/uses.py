"""What PyTorch does with a layer besides calling it: differentiating and compiling it."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from bench.cuda import reference
from bench.cuda.shapes import Shape
from moec.runtime.module import Layer


def gradients(layer: Layer, shape: Shape, weights: Mapping[str, torch.Tensor], x: torch.Tensor) -> str:
    """What is wrong with `loss.backward()` beside float64; empty if nothing is.

    The loss is the sum of the result's elements by random factors.
    """
    # Tokens whose choice of experts is a matter of rounding are left out.
    x = x[reference.layer(shape, weights, x)[1]]
    factors = torch.randn_like(x)
    ours = x.clone().requires_grad_()
    layer.zero_grad()
    with torch.enable_grad():
        (layer(ours).float() * factors.float()).sum().backward()
        exact = {name: weight.double().requires_grad_() for name, weight in weights.items()}
        wide = x.double().requires_grad_()
        y, _ = reference.layer(shape, exact, wide)
        (y * factors.double()).sum().backward()
    named = dict(layer.named_parameters())
    pairs = {"x": (ours.grad, wide.grad)} | {name: (named[name].grad, exact[name].grad) for name in exact}
    for name, (found, wanted) in pairs.items():
        if found is None or wanted is None:
            return f"{name} has no gradient"
        error = float((found.double() - wanted).norm() / wanted.norm().clamp_min(1e-30))
        if not error <= reference.TOLERANCE:
            return f"the gradient of {name} is off by {error:.1e}"
    return ""


def compiled(layer: Layer, x: torch.Tensor) -> str:
    """What is wrong with `torch.compile`, in one graph; empty if nothing is."""
    with torch.no_grad():
        expected = layer(x)
        found = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    return "" if torch.equal(found, expected) else "other bits than without it"
