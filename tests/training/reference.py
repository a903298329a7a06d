"""Layers in differentiable float64 PyTorch, put together from the references of the oracle's tests; their losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.oracle import references
from tests.oracle.test_standard_library import EXPERTS, FF, ROUTERS, D, E, RouterCase, T, logits, swiglu, weights

__all__ = ["Case", "Named", "T", "cases", "gradients_of", "layer_text", "losses", "relative_error", "softmax_of_two"]

Named = dict[str, Tensor]
Reference = Callable[[Named], Tensor]


@dataclass(frozen=True)
class Case:
    """A layer in the language and in PyTorch: from its tensors by name (x and other inputs too) to y, in float64.

    highest  for tensors of integers by name: values are drawn from 0 to this (exclusive)
    """

    name: str
    text: str
    reference: Reference
    highest: Mapping[str, int]


def layer_text(router: str, expert: str, shared: str = "", dtype: str = "f32", more: Sequence[str] = ()) -> str:
    """A file with one layer of the sizes that the references know."""
    lines = [
        f"layer L(d = {D}, ff = {FF}) {{",
        f"  router {router} : f32",
        f"  experts routed[{E}] = {expert} : {dtype}",
        *([f"  shared common[2] = {shared} : {dtype}"] if shared else []),
        "  tokens dropless",
        *(f"  {line}" for line in more),
        "}",
    ]
    return "edition 1\n\n" + "\n".join(lines) + "\n"


def cases(dtype: str = "f32") -> list[Case]:
    """Every router and every expert of the standard library."""
    found = [
        Case(router.call, layer_text(router.call, "swiglu(d, ff)", dtype=dtype), _routed_by(router), router.highest)
        for router in ROUTERS
    ]
    for call, expert in EXPERTS:
        text = layer_text("softmax_top(2)", call, dtype=dtype)
        found.append(Case(call, text, _made_of(expert, "routed"), {}))
        text = layer_text("softmax_top(2)", "swiglu(d, ff)", call, dtype)
        found.append(Case(f"shared {call}", text, _made_of(expert, "shared"), {}))
    return found


def softmax_of_two(w: Named) -> Tensor:
    """The dense gate of `softmax_top(2)`."""
    return references.top_k_softmax(w["x"] @ w["router.logits.weight"].T, 2, renorm=True)


def _routed_by(router: RouterCase) -> Reference:
    def layer(w: Named) -> Tensor:
        return references.apply(w["x"], router.gate(w, logits(w)), swiglu(w))

    return layer


def _made_of(expert: Callable[[Named, Tensor], Tensor], place: str) -> Reference:
    def layer(w: Named) -> Tensor:
        if place == "routed":
            return references.apply(w["x"], softmax_of_two(w), lambda e, x: expert(weights(w, "routed", e), x))
        y = references.apply(w["x"], softmax_of_two(w), swiglu(w))
        return y + sum(expert(weights(w, "common", e), w["x"]) for e in range(2))

    return layer


def losses(w: Named, k: int, balance: float, z: float) -> Tensor:
    """The auxiliary losses of a softmax router that picks `k`, from the papers (runtime/losses.py names them)."""
    scores = logits(w)
    picks = scores.topk(k, -1).indices
    share = F.one_hot(picks, E).sum((0, 1)).double() / picks.numel()
    return balance * E * (share * scores.softmax(-1).mean(0)).sum() + z * scores.logsumexp(-1).square().mean()


def gradients_of(function: Callable[[Named], Tensor], tensors: Mapping[str, Tensor]) -> Named:
    """Gradients of a scalar function with respect to all tensors of floats, in float64."""
    exact = {
        name: tensor.detach().double().requires_grad_() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    over = {name: tensor for name, tensor in exact.items() if tensor.is_floating_point()}
    value = function(exact) + sum(0 * tensor.sum() for tensor in over.values())  # so that it depends on everything
    found = torch.autograd.grad(value, list(over.values()))
    return dict(zip(over, found, strict=True))


def relative_error(got: Tensor, want: Tensor) -> float:
    """Frobenius norm of the difference over that of `want`; where `want` is 0, that of `got`."""
    size = float(want.double().norm())
    return float((got.double() - want.double()).norm()) / (size or 1.0)
