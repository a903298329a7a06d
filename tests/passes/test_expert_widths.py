"""Experts whose values have several widths: each is made by a linear that is as wide, in whatever order they stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moec import oracle, passes
from moec.errors import DiagnosticError
from moec.pipeline import Compilation

from .test_meaning import random_arguments

FILE = """edition 1

expert kind(d, ff) {{
{body}
}}

router mine(k) {{
{router}
  pick = top_k(logits, k)
  weight = softmax(logits over pick)
}}

layer L(d = 6) {{
  router mine(2)
  experts routed[3] = kind(d, 5) : f32
}}
"""
PLAIN = "  y = linear(relu(linear(x, ff)), d)"
LOGITS = "  logits = linear(x, count)"
BODIES = {
    "a gate behind": "  h = linear(x, ff)\n  g = linear(x, 1)\n  y = linear(relu(h) * g, d)",
    "a gate of a gate": "  g = silu(linear(x, 1))\n  h = linear(x, ff)\n  y = linear(h * sigmoid(linear(g, 1)), d)",
    "divided": "  y = linear(x, d) / (2 + tanh(linear(x, 1)))",
    "of a later linear": "  h = linear(x, ff)\n  o = linear(x, d)\n  y = o * linear(relu(h), 1)",
}
ROUTERS = {
    "a gate behind": "  h = linear(x, 5)\n  logits = linear(tanh(h) * linear(x, 1), count)",
    "a bias of a gate": "  h = linear(x, 5)\n  g = linear(x, 1, bias = true)\n  logits = linear(h - sigmoid(g), count)",
}


def file(folder: Path, body: str = PLAIN, router: str = LOGITS) -> Path:
    path = folder / "layer.moe"
    path.write_text(FILE.format(body=body, router=router))
    return path


@pytest.mark.parametrize(
    ("body", "router"),
    [*((body, LOGITS) for body in BODIES.values()), *((PLAIN, router) for router in ROUTERS.values())],
    ids=[*BODIES, *(f"router: {name}" for name in ROUTERS)],
)
def test_the_layer_means_the_same(tmp_path: Path, body: str, router: str) -> None:
    path = file(tmp_path, body, router)
    module = Compilation(path).graph
    arguments = random_arguments(module, 9, np.random.default_rng(0))
    before = oracle.run(module, arguments)["y"]
    passes.run(module, passes.parse_pipeline(("canonicalize", "expand-experts", "hoist-router", "canonicalize")))
    text = str(module)
    assert "linalg.matvec" not in text
    np.testing.assert_allclose(oracle.run(module, arguments)["y"], before, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("  y = x", "depends on no linear"),
        ("  y = x * linear(x, 1)", "wider than every linear"),
        ("  h = linear(x, ff)\n  y = linear(h * linear(relu(h), 1), d)", "two different values made from one linear"),
    ],
)
def test_what_no_linear_can_make_is_refused(tmp_path: Path, body: str, why: str) -> None:
    with pytest.raises(DiagnosticError, match=why) as caught:
        _ = Compilation(file(tmp_path, body)).kernels
    assert "E0610" in str(caught.value)


def test_an_expert_may_be_thousands_of_operations_deep(tmp_path: Path) -> None:
    lines = ["  h0 = linear(x, ff)", *(f"  h{n + 1} = tanh(h{n})" for n in range(2000)), "  y = linear(h2000, d)"]
    module = Compilation(file(tmp_path, "\n".join(lines))).graph
    passes.run(module, passes.parse_pipeline(("canonicalize", "expand-experts")))
    assert str(module).count("math.tanh") == 2000
