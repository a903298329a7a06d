"""Pieces one after the other give the bits of the layer that they are cut from."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from moec.artifact.container import read
from tests.pieces.chain import Chain, chain, compiled

pytestmark = pytest.mark.long

LAYERS = {
    "f32": "layer L(d = 33, ff = 24) {\n  router softmax_top(3)\n  experts routed[7] = swiglu(d, ff) : f32\n}",
    "shared": "layer L(d = 48, ff = 33) {\n  router deepseek_moe(3)\n  experts routed[6] = swiglu(d, ff) : bf16\n"
    "  shared common[3] = swiglu(d, ff) : bf16\n"
    "  shared other[2] = sigmoid(linear(x, 1)) * swiglu(d, 20) : bf16\n}",
    "capacity": "layer L(d = 33, ff = 17) {\n  router switch()\n  experts routed[5] = mlp_relu(d, ff) : f32\n"
    "  shared common[2] = mlp_relu(d, ff) : f32\n  tokens capacity(1.0)\n}",
    "hash": "layer L(d = 32, ff = 16) {\n  router hash(8, k = 2)\n  experts routed[8] = mlp_relu(d, ff)\n}",
    "int4": "layer L(d = 64, ff = 64) {\n  router softmax_top(2)\n  experts routed[6] = swiglu(d, ff)"
    " : int4(group = 32)\n  shared common[2] = swiglu(d, ff) : int4(group = 32)\n  approx rows as int8\n}",
}


@cache
def loaded(name: str) -> Chain:
    return chain(LAYERS[name])


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("tokens", [0, 1, 2, 19, 64])
def test_every_bit_is_the_same(name: str, tokens: int) -> None:
    layer = loaded(name)
    random = torch.Generator().manual_seed(tokens)
    first = layer.whole.manifest.inputs[0]
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[first.dtype]
    x = torch.randn((tokens, *first.row), generator=random)
    for inputs in (x, x + 3 * torch.randn(first.row, generator=random)):  # of the latter most choose the same
        given = [inputs.to(dtype)]
        if name == "hash":
            given.append(torch.randint(8, (tokens,), generator=random, dtype=torch.int32))
        want = layer.whole(*given)
        for cuts in ([], [tokens // 3], [0, 0, tokens // 2, tokens]):
            assert torch.equal(layer(*given, cuts=cuts, seed=tokens), want)


def test_weights_that_nothing_reads_are_in_the_pieces_too() -> None:
    """As they are in the layer's; else its weights would not be those of the pieces."""
    unread = """router mine(k) {
  logits = linear(x, count)
  other  = linear(x, 3, bias = true)
  pick   = top_k(logits, k)
  weight = softmax(logits over pick)
}

expert kind(d, ff) {
  g = linear(x, 4)
  y = linear(relu(linear(x, ff)), d)
}

layer L(d = 8) {
  router mine(1)
  experts routed[4] = kind(d, 8)
  shared common[2] = kind(d, 8)
}
"""
    artifact = read(compiled(unread))
    pieces = [artifact.piece(name).manifest for name in ("route", "experts", "shared")]
    found = [weight.name for one in pieces for weight in one.parameters]
    assert found == [weight.name for weight in artifact.manifest.parameters]
    assert {"router.other.bias", "routed.g.weight", "common.g.weight"} < set(found)
