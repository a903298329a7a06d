"""Weights that change: kept ones in place, others instead, copies of a module, and what it gives back."""

from __future__ import annotations

import copy

import torch

from moec.errors import WeightsError
from tests.bits import same_bits
from tests.fuzz.inference import pack
from tests.fuzz.tensors import Named, weights
from tests.fuzz.ways.tried import Tried, require_same


def run(tried: Tried) -> None:
    batch = tried.tokens(33)
    manifest, kernel = tried.layer.manifest, tried.layer.kernel
    first = tried.layer(batch)
    others = weights(manifest, "random", torch.Generator().manual_seed(tried.sample.seed + 1))
    second = pack(kernel, others)(batch)
    half: Named = {name: (others if at % 2 else tried.layer.given)[name] for at, name in enumerate(others)}
    third = pack(kernel, half)(batch)
    with torch.no_grad():
        kept = tried.module(keep_weights=True)
        require_same(kept(**batch), first, "kept weights")
        twin = copy.deepcopy(kept)
        for name, tensor in kept.state_dict(keep_vars=True).items():
            if not same_bits(half[name], tried.layer.given[name]):
                tensor.copy_(half[name])  # in place; the others keep their stamps
        require_same(kept(**batch), third, "weights that were changed in place")
        kept.pack()
        require_same(kept(**batch), third, "weights that were packed")
        kept.load_state_dict(others)
        require_same(kept(**batch), second, "other weights")
        require_same(twin(**batch), first, "a copy, of which nothing was changed")
        packed = copy.deepcopy(tried.module())
        require_same(packed(**batch), first, "a copy of packed weights")
        swapped = torch.func.functional_call(twin, others, (), batch)
        require_same(swapped, second, "weights that stand in for one call")
        require_same(twin(**batch), first, "weights that others stood in for")
        try:
            with packed.unpacked() as ordinary:
                state = {name: tensor.clone() for name, tensor in ordinary.state_dict().items()}
                ordinary.load_state_dict(half)
        except WeightsError:
            quantised = manifest.quantised
            assert quantised is not None
            assert not all(one.scales for one in quantised.stored)
        else:
            assert all(same_bits(tensor, tried.layer.given[name]) for name, tensor in state.items())
            require_same(packed(**batch), third, "weights that were edited")
