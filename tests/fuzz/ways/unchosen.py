"""Weights of an expert that no token chooses: whatever they are, nobody sees them."""

from __future__ import annotations

import torch

from tests.bits import same_bits
from tests.fuzz.inference import pack
from tests.fuzz.ways.tried import Tried

AWKWARD = (float("nan"), float("inf"), -float("inf"), 3e38, 0.0)


def run(tried: Tried) -> None:
    """Fewer tokens, until some expert has none; then that one gets awkward weights, each kind in its turn."""
    layer = tried.layer
    count = layer.manifest.statistics[0].row[0]
    for tokens in (17, 5, 2, 1):
        batch = tried.tokens(tokens)
        chosen = layer.chosen(batch)
        empty = [expert for expert in range(count) if not chosen[expert]]
        if empty:
            break
    else:
        return
    wanted = layer(batch)
    for number, value in enumerate(AWKWARD):
        given = {}
        for name, tensor in layer.given.items():
            given[name] = tensor
            if name.startswith("routed.") and tensor.dtype.is_floating_point:
                given[name] = tensor.clone()
                given[name][empty] = torch.tensor(value).to(tensor.dtype)
        found = pack(layer.kernel, given)(batch, 1 + number % 2)
        assert same_bits(found, wanted), f"weights of {value} of experts {empty}, which no token chooses, are seen"
