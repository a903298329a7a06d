"""The standard library, lowered and run by the oracle, against references written by hand in PyTorch float64.

They agree to f32: the constants in the IR are rounded to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moec import frontend, oracle
from moec.diagnostics import Source
from moec.dialect import context
from moec.frontend.model import Layer

from . import references

D, FF, E, T = 12, 9, 8, 23
Named = dict[str, Tensor]


def random_tensors(layer: Layer, tokens: int, seed: int, highest: dict[str, int]) -> Named:
    """Normal values for floats; integers from 0 to `highest` (exclusive) by name."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for tensor in (*layer.inputs, *layer.parameters):
        shape = [tokens if n is None else n for n in tensor.shape]
        if str(tensor.dtype) == "i32":
            tensors[tensor.name] = torch.randint(highest[tensor.name], shape, generator=generator)
        else:
            tensors[tensor.name] = torch.randn(shape, generator=generator, dtype=torch.float64)
    return tensors


def run(text: str, tokens: int = T, seed: int = 0, **highest: int) -> tuple[Named, Tensor]:
    """(the tensors that the layer was given, the oracle's answer)."""
    layer = frontend.load_layer_text(Source("layer.moe", "edition 1\n" + text + "\n"))
    tensors = random_tensors(layer, tokens, seed, highest)
    module = frontend.lower(layer, context())
    return tensors, torch.from_numpy(oracle.run(module, {n: t.numpy() for n, t in tensors.items()})["y"])


def swiglu(w: Named, group: str = "routed") -> Callable[[int, Tensor], Tensor]:
    names = ("gate", "up", "down")
    return lambda e, x: references.glu(x, *(w[f"{group}.{n}.weight"][e] for n in names), F.silu)


@dataclass(frozen=True)
class RouterCase:
    """A router of the standard library and the dense gate that a reference gives."""

    call: str
    gate: Callable[[Named, Tensor], Tensor]
    highest: dict[str, int] = field(default_factory=dict)

    def text(self) -> str:
        return f"""layer L(d = {D}, ff = {FF}) {{
  router {self.call} : f32
  experts routed[{E}] = swiglu(d, ff) : f32
  tokens dropless
}}"""


def per_task(w: Named, logits: Tensor) -> Tensor:
    mine = logits.view(T, 3, E)[torch.arange(T), w["task"]]
    return references.top_k_softmax(mine, 2, renorm=True)


def logits(w: Named) -> Tensor:
    """The router's linear, [T, n]; empty where it has none."""
    found = [t for n, t in w.items() if n in ("router.logits.weight", "router.gates.weight")]
    return w["x"] @ found[0].T if found else torch.empty(0)


ROUTERS = [
    RouterCase("softmax_top(3)", lambda w, z: references.top_k_softmax(z, 3, renorm=True)),
    RouterCase("softmax_top(3, renorm = false)", lambda w, z: references.top_k_softmax(z, 3, renorm=False)),
    RouterCase("sigmoid_top(3)", lambda w, z: references.sigmoid_top(z, 3, renorm=True)),
    RouterCase("switch()", lambda w, z: references.switch(z)),
    RouterCase("gshard_top2()", lambda w, z: references.top_k_softmax(z, 2, renorm=True)),
    RouterCase("mixtral(3)", lambda w, z: references.mixtral(z, 3)),
    RouterCase("qwen_moe(3)", lambda w, z: references.top_k_softmax(z, 3, renorm=False)),
    RouterCase("deepseek_moe(3, scale = 2.0)", lambda w, z: 2 * references.top_k_softmax(z, 3, renorm=False)),
    RouterCase(
        "deepseek_v3(3, groups = 4, top_groups = 2)",
        lambda w, z: references.deepseek_v3(z, w["router.bias"], 3, 4, 2, True, 2.5),
    ),
    RouterCase(
        "deepseek_v3(2, groups = 2, top_groups = 1, scale = 1.5, renorm = false)",
        lambda w, z: references.deepseek_v3(z, w["router.bias"], 2, 2, 1, False, 1.5),
    ),
    RouterCase("moge(4, groups = 2)", lambda w, z: references.moge(z, 4, 2)),
    RouterCase("top_p(0.6, most = 8)", lambda w, z: references.top_p(z, 0.6, 8)),
    RouterCase("top_p(0.9, most = 2)", lambda w, z: references.top_p(z, 0.9, 2)),
    RouterCase("adamoe(4, nulls = 5)", lambda w, z: references.adamoe(z, 4, E)),
    RouterCase("sigma_moe(3)", lambda w, z: references.sigmoid_top(z, 3, renorm=False)),
    RouterCase(
        "hash(100, k = 1)",
        lambda w, z: references.hashed(w["router.table"], w["token"], E),
        {"token": 100, "router.table": E},
    ),
    RouterCase("task_moe(2, tasks = 3)", per_task, {"task": 3}),
]


@pytest.mark.parametrize("case", ROUTERS, ids=lambda case: case.call)
def test_router(case: RouterCase) -> None:
    w, got = run(case.text(), **case.highest)
    want = references.apply(w["x"], case.gate(w, logits(w)), swiglu(w))
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("order", ["token", "choice", "score"])
@pytest.mark.parametrize("factor", [0.25, 0.75, 4.0])
def test_capacity(order: str, factor: float) -> None:
    w, got = run(f"""layer L(d = {D}, ff = {FF}) {{
  router softmax_top(2) : f32
  experts routed[{E}] = swiglu(d, ff) : f32
  tokens capacity({factor}, order = {order})
}}""")
    logits = w["x"] @ w["router.logits.weight"].T
    gate = references.top_k_softmax(logits, 2, renorm=True)
    rank = logits.argsort(-1, descending=True).argsort(-1)
    limit = -(-int(factor * T * 2 * 100) // (E * 100))
    want = references.apply(w["x"], references.capacity(gate, rank, limit, order), swiglu(w))
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def weights(w: Named, group: str, e: int) -> Named:
    """The tensors of one expert of a group, by their names in it."""
    prefix = group + "."
    return {n.removeprefix(prefix): t[e] for n, t in w.items() if n.startswith(prefix)}


def mlp_with_biases(act: Callable[[Tensor], Tensor]) -> Callable[[Named, Tensor], Tensor]:
    return lambda w, x: act(x @ w["up.weight"].T + w["up.bias"]) @ w["down.weight"].T + w["down.bias"]


def gated_swiglu(w: Named, x: Tensor) -> Tensor:
    inner = references.glu(x, w["gate.weight"], w["up.weight"], w["down.weight"], F.silu)
    return (x @ w["share.weight"].T).sigmoid() * inner


# Half way between two neighbours in bf16, so that no gate lies on the other side of it once it is rounded.
LIMIT = 0.501953125

EXPERTS: list[tuple[str, Callable[[Named, Tensor], Tensor]]] = [
    ("mlp_relu(d, ff)", lambda w, x: references.mlp(x, w["up.weight"], w["down.weight"], F.relu)),
    ("mlp_relu(d, ff, bias = true)", mlp_with_biases(F.relu)),
    ("mlp_gelu(d, ff, bias = true)", mlp_with_biases(F.gelu)),
    ("swiglu(d, ff)", lambda w, x: references.glu(x, w["gate.weight"], w["up.weight"], w["down.weight"], F.silu)),
    ("geglu(d, ff)", lambda w, x: references.glu(x, w["gate.weight"], w["up.weight"], w["down.weight"], F.gelu)),
    (f"clamped_swiglu(d, ff, limit = {LIMIT})", lambda w, x: references.clamped_swiglu(x, w, LIMIT, 1.702)),
    ("gated_swiglu(d, ff)", gated_swiglu),
]


@pytest.mark.parametrize(("call", "reference"), EXPERTS, ids=[call for call, _ in EXPERTS])
@pytest.mark.parametrize("place", ["routed", "shared"])
def test_expert(call: str, reference: Callable[[Named, Tensor], Tensor], place: str) -> None:
    routed = call if place == "routed" else "swiglu(d, ff)"
    shared = f"shared common[2] = {call} : f32" if place == "shared" else ""
    w, got = run(f"""layer L(d = {D}, ff = {FF}) {{
  router softmax_top(2) : f32
  experts routed[{E}] = {routed} : f32
  {shared}
  tokens dropless
}}""")
    gate = references.top_k_softmax(w["x"] @ w["router.logits.weight"].T, 2, renorm=True)
    expert: Any = (
        reference
        if place == "routed"
        else lambda mine, x: references.glu(x, mine["gate.weight"], mine["up.weight"], mine["down.weight"], F.silu)
    )
    want = references.apply(w["x"], gate, lambda e, x: expert(weights(w, "routed", e), x))
    if place == "shared":
        want = want + sum(reference(weights(w, "common", e), w["x"]) for e in range(2))
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
