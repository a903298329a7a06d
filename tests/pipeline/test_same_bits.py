"""A variant for few tokens has the bits of the layer that it is made from, for any number of tokens and any routing."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import moec
from moec.artifact.specialisation import Specialisation
from moec.pipeline.respecialise import respecialise
from moec.runtime.module import Layer

pytestmark = pytest.mark.every_variant
LAYERS = {
    "bf16": "layer L(d = 70, ff = 45) {\n  router softmax_top(3)\n  experts routed[24] = swiglu(d, ff) : bf16\n}",
    "f32": "layer L(d = 33, ff = 17) {\n  router softmax_top(2)\n  experts routed[9] = swiglu(d, ff) : f32\n"
    "  shared common[1] = swiglu(d, ff) : f32\n  tokens capacity(1.0)\n}",
}
MOST = 3


@cache
def compiled(name: str) -> Path:
    source = Path(mkdtemp(prefix="moec-test-")) / f"{name}.moe"
    source.write_text(f"edition 1\n{LAYERS[name]}\n")
    return moec.compile(source)


@cache
def layers(name: str, code: str | None) -> tuple[Layer, Layer]:
    """The layer, and its variant for up to MOST tokens a call, with the same weights; `code` for the processor."""
    path = compiled(name)
    base = moec.load(path, variant=code)
    output = path.with_name(f"few_{base.variant}.so")
    variant = moec.load(respecialise(path, Specialisation("few", (1, MOST)), output, base.variant))
    for layer in (base, variant):
        layer.reset_parameters(1)
    of_base = next(one for one in base.manifest.variants if one.name == base.variant)
    assert variant.manifest.variants[0].layout != of_base.layout, "nothing to test"
    return base, variant


@pytest.mark.parametrize("code", [None, "generic"])
@pytest.mark.parametrize("name", LAYERS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tokens=st.integers(0, 60), seed=st.integers(0, 999), skew=st.floats(0, 3), threads=st.integers(1, 3))
def test_every_bit_is_the_same(name: str, code: str | None, tokens: int, seed: int, skew: float, threads: int) -> None:
    base, variant = layers(name, code)
    random = torch.Generator().manual_seed(seed)
    row = base.manifest.inputs[0].row
    common = skew * torch.randn(row, generator=random)  # the more of it, the more tokens choose the same experts
    x = (torch.randn((tokens, *row), generator=random) + common).to(base.routed.down.weight.dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(base(x), variant(x))
    finally:
        torch.set_num_threads(before)
