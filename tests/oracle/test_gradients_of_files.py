"""Gradients of routers and experts that people write, of adversarial inputs; what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_mlir import ir

from moec import frontend, passes
from moec.diagnostics import Source
from moec.dialect import context
from moec.dialect.functions import named_function
from moec.errors import DiagnosticError

from . import references
from .test_gradients import PIPELINE, Trained, check, train
from .test_standard_library import FF, ROUTERS, D, E, Named, logits, random_tensors, swiglu, weights


def own_router(body: str) -> str:
    return f"""router mine(k) {{
{body}
  p = softmax(logits)
  pick = top_k(p, k)
  weight = p / sum(p over pick)
}}
layer L(d = {D}, ff = {FF}) {{
  router mine(2)
  experts routed[{E}] = swiglu(d, ff) : f32
}}"""


OWN_ROUTERS: dict[str, tuple[str, Callable[[Named, Tensor], Tensor]]] = {
    "two layers with biases": (
        "  h = tanh(linear(x, 7, bias = true))\n  logits = linear(h, count, bias = true)",
        lambda w, x: F.linear(
            torch.tanh(F.linear(x, w["router.linear_0.weight"], w["router.linear_0.bias"])),
            w["router.logits.weight"], w["router.logits.bias"],
        ),
    ),
    "cosine with a temperature": (
        "  n = x / norm(x)\n  logits = linear(n, count) * exp(param(1))",
        lambda w, x: (x / x.norm(dim=-1, keepdim=True)) @ w["router.linear_0.weight"].T * w["router.param_0"].exp(),
    ),
    "another input": (
        "  input wish[8] : f32\n  logits = linear(x, count) + wish",
        lambda w, x: x @ w["router.linear_0.weight"].T + w["wish"],
    ),
    "parameters of two axes": (
        "  g = param(4, 2)\n  logits = linear(x, count) + merge(softplus(g))",
        lambda w, x: x @ w["router.linear_0.weight"].T + F.softplus(w["router.g"]).flatten(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OWN_ROUTERS)
def test_own_router(name: str) -> None:
    body, reference = OWN_ROUTERS[name]

    def layer(w: Named) -> Tensor:
        gate = references.top_k_softmax(reference(w, w["x"]), 2, renorm=True)
        return references.apply(w["x"], gate, swiglu(w))

    check(train(own_router(body)), layer)


@pytest.mark.parametrize("name", OWN_ROUTERS)
@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
def test_gradients_have_the_types_of_what_they_are_of(name: str, dtype: str) -> None:
    body, _ = OWN_ROUTERS[name]
    text = f"edition 1\n{own_router(body)}\n".replace("mine(2)", f"mine(2) : {dtype}")
    module = frontend.lower(frontend.load_layer_text(Source("layer.moe", text)), context())
    passes.run(module, passes.parse_pipeline(PIPELINE))
    backward = named_function(module, "L_backward")
    given, made = (
        {ir.StringAttr(one["moe.name"]).value: str(type_) for one, type_ in zip(names, types, strict=True)}
        for names, types in (
            (backward.attributes["arg_attrs"], [argument.type for argument in backward.regions[0].blocks[0].arguments]),
            (
                backward.attributes["res_attrs"],
                list(ir.FunctionType(ir.TypeAttr(backward.attributes["function_type"]).value).results),
            ),
        )
    )
    assert len(made) > 4
    assert {name: given[name.removeprefix("d.")] for name in made} == made


def own_expert(body: str) -> str:
    return f"""expert mine(d, ff) {{
{body}
}}
layer L(d = {D}, ff = {FF}) {{
  router softmax_top(2)
  experts routed[{E}] = mine(d, ff) : f32
}}"""


OWN_EXPERTS: dict[str, tuple[str, Callable[[Named, Tensor], Tensor]]] = {
    "three layers": (
        "  a = linear(x, ff)\n  b = linear(silu(a), 5)\n  y = linear(tanh(b), d)",
        lambda w, x: torch.tanh(F.silu(x @ w["a.weight"].T) @ w["b.weight"].T) @ w["y.weight"].T,
    ),
    "gated inside": (
        "  a = linear(x, ff)\n  b = linear(x, ff)\n  c = linear(silu(a) * b, 5)\n  e = linear(silu(a) * b, 5)\n"
        "  y = linear(sigmoid(c) * e, d)",
        lambda w, x: (
            ((F.silu(x @ w["a.weight"].T) * (x @ w["b.weight"].T)) @ w["c.weight"].T).sigmoid()
            * ((F.silu(x @ w["a.weight"].T) * (x @ w["b.weight"].T)) @ w["e.weight"].T)
        ) @ w["y.weight"].T,
    ),
    "scaled neurons": (
        "  s = param(ff)\n  y = linear(s * relu(linear(x, ff)), d)",
        lambda w, x: (w["s"] * F.relu(x @ w["linear_0.weight"].T)) @ w["y.weight"].T,
    ),
    "one linear": ("  y = linear(x, d, bias = true)",
                   lambda w, x: F.linear(x, w["y.weight"], w["y.bias"])),
    "one linear, gated": (
        "  y = sigmoid(linear(x, 1)) * linear(x, d)",
        lambda w, x: (x @ w["linear_0.weight"].T).sigmoid() * (x @ w["linear_1.weight"].T),
    ),
    "a gate with a bias, all biased": (
        "  g = linear(x, 1, bias = true)\n  h = linear(x, ff, bias = true)\n"
        "  y = sigmoid(g) * linear(gelu(h), d, bias = true) / 2",
        lambda w, x: (
            F.linear(x, w["g.weight"], w["g.bias"]).sigmoid()
            * F.linear(F.gelu(F.linear(x, w["h.weight"], w["h.bias"])), w["linear_0.weight"], w["linear_0.bias"]) / 2
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OWN_EXPERTS)
def test_own_expert(name: str) -> None:
    body, reference = OWN_EXPERTS[name]

    def layer(w: Named) -> Tensor:
        gate = references.top_k_softmax(w["x"] @ w["router.logits.weight"].T, 2, renorm=True)
        return references.apply(w["x"], gate, lambda e, x: reference(weights(w, "routed", e), x))

    check(train(own_expert(body)), layer)


SWIGLU = f"""layer L(d = {D}, ff = {FF}) {{
  router softmax_top(2)
  experts routed[{E}] = swiglu(d, ff) : f32
  shared common = gated_swiglu(d, ff) : f32
}}"""


def swiglu_layer(w: Named) -> Tensor:
    gate = references.top_k_softmax(logits(w), 2, renorm=True)
    share = (w["x"] @ w["common.share.weight"][0].T).sigmoid()
    return references.apply(w["x"], gate, swiglu(w)) + share * swiglu(w, "common")(0, w["x"])


@pytest.mark.parametrize("tokens", [1, 2, 33])
def test_any_number_of_tokens(tokens: int) -> None:
    check(train(SWIGLU, tokens=tokens), swiglu_layer)


def test_no_tokens() -> None:
    trained = train(SWIGLU, tokens=0)
    assert trained.gradients["x"].shape == (0, D)
    assert all(not gradient.any() for gradient in trained.gradients.values())


def test_two_experts_have_all_tokens() -> None:
    def tensors(layer: frontend.Layer) -> Named:
        given = random_tensors(layer, 17, 5, {})
        given["router.logits.weight"][:, 0] = torch.tensor([0.0, 0, 9, 0, 0, 8, 0, 0])
        given["x"][:, 0] = 3.0
        return given

    trained = train(SWIGLU, tensors)
    check(trained, swiglu_layer)
    touched = trained.gradients["routed.gate.weight"].any((1, 2))
    np.testing.assert_array_equal(np.flatnonzero(touched), [2, 5])


def test_large_values_stay_finite() -> None:
    """Pre-activations of thousands, logits of hundreds: sigmoids and softmaxes are 0 or 1, gradients are no NaN."""

    def tensors(layer: frontend.Layer) -> Named:
        return {n: 300 * t if n == "x" else t for n, t in random_tensors(layer, 9, 6, {}).items()}

    trained = train(SWIGLU, tensors)
    assert all(np.isfinite(gradient).all() for gradient in trained.gradients.values())
    check(trained, swiglu_layer)


def test_a_token_that_chooses_no_expert_has_no_gradient() -> None:
    """AdaMoE: where all choices are nulls, the weights are 0/0, and nothing of it may come through."""
    (case,) = (case for case in ROUTERS if case.call.startswith("adamoe"))

    def tensors(layer: frontend.Layer) -> Named:
        given = random_tensors(layer, 7, 7, {})
        given["router.logits.weight"][:, 0] = torch.tensor([0.0] * E + [9.0] * 5)
        given["x"][:, 0] = torch.tensor([5.0, -5, 5, -5, 5, -5, -5])
        return given

    trained: Trained = train(case.text(), tensors)
    assert all(np.isfinite(gradient).all() for gradient in trained.gradients.values())
    np.testing.assert_array_equal(trained.gradients["x"][[0, 2, 4]], 0)
    assert trained.gradients["x"][[1, 3, 5, 6]].any(-1).all()


REFUSED = {
    "y = tanh(linear(silu(linear(x, ff)), d))": "not linear in its last linear",
    "y = linear(relu(linear(x, ff)), d) + linear(tanh(linear(x, ff)), d)": "adds elements of kind row",
    "y = linear(x * linear(x, d), d)": "reads elements of kind token",
}


@pytest.mark.parametrize("body", REFUSED)
def test_what_cannot_be_differentiated_is_refused(body: str) -> None:
    with pytest.raises(DiagnosticError) as caught:
        train(own_expert("  " + body))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E0620"
    assert REFUSED[body] in diagnostic.message
    assert "layer.moe" in diagnostic.notes[0]


@pytest.mark.parametrize(("format_", "more"), [("int8(per = channel)", ""), ("int4(group = 4)", "approx rows as int8")])
def test_quantised_experts_are_not_trained(format_: str, more: str) -> None:
    text = f"""edition 1
layer L(d = 12, ff = 8) {{
  router softmax_top(2)
  experts routed[8] = swiglu(d, ff) : {format_}
  {more}
}}
"""
    module = frontend.lower(frontend.load_layer_text(Source("layer.moe", text)), context())
    with pytest.raises(DiagnosticError) as caught:
        passes.run(module, passes.parse_pipeline(PIPELINE))
    assert [one.code for one in caught.value.diagnostics] == ["E0621"]


def test_what_gets_no_gradient_is_left_out() -> None:
    """A weight that is a constant: the router's linear only chooses."""
    trained = train(f"""router counts(k) {{
  pick = top_k(linear(x, count), k)
  weight = 1 / k
}}
layer L(d = {D}, ff = {FF}) {{
  router counts(2)
  experts routed[{E}] = swiglu(d, ff) : f32
}}""")
    assert set(trained.gradients) == {"x", "routed.gate.weight", "routed.up.weight", "routed.down.weight"}
