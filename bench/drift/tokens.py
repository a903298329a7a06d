"""Calls whose number of tokens changes: a layer that stays, one that follows, and one that has every variant already.

The same requests go to all three in turns, in changing order, so that whatever else the machine does meets all of them
alike.  A turn is long enough for caches to fill: the layer's weights fit in them, which is where variants gain.
`told` has the variants of all ranges from the start, which is as good as to know each phase ahead and switch at once.
One core computes; the other is left to the compiler and to whoever else is there.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

import moec
from bench.drift.traffic import Phase, Router, Traffic, order
from bench.machine import Quiet
from moec.artifact.allowed import range_gain, regimes
from moec.artifact.container import read
from moec.runtime.adapt.published import BASE, Build, Overlay, Published
from moec.runtime.adapt.supply import Supply
from moec.runtime.adapt.transfer import transferred
from moec.runtime.adapt.worker import Worker
from moec.runtime.module import Layer
from moec.runtime.native import bind, library

D, FF, EXPERTS, TOP_K = 512, 128, 32, 2
TURN = 64
"""Calls."""
SOURCE = f"""edition 1
layer Regimes(d = {D}, ff = {FF}, E = {EXPERTS}, dtype = bf16) {{
  router softmax_top({TOP_K}) : f32
  experts routed[E] = swiglu(d, ff) : dtype
}}
layout Follow for Regimes {{
  specialise tokens(1..4, 5..16, 17..4096)
  recompile when tokens >= 1 for 200 calls, gain 1.02
}}
"""
PHASES = (
    Phase(0.0, 0, ((1, 0.7), (4, 0.3))),
    Phase(0.8, 8, ((16, 0.8), (8, 0.2))),
    Phase(1.2, 16, ((1, 0.5), (16, 0.3), (2048, 0.02))),
    Phase(0.4, 24, ((256, 0.8), (2048, 0.2))),
)
MODES = ("still", "following", "told")


def scenario(folder: Path, seconds: float, quiet: Quiet) -> dict[str, Any]:
    """Seconds that the calls of each phase took in each mode."""
    source = folder / "regimes.moe"
    source.write_text(SOURCE)
    path = moec.compile(source, folder / "regimes.so")
    layers = {mode: moec.load(path).reset_parameters(1) for mode in MODES}
    with layers["still"].unpacked() as layer:
        router = layer.get_parameter("router.logits.weight").detach().clone()
    traffic = Traffic(Router(router, TOP_K, order(EXPERTS)), PHASES, torch.bfloat16)
    give_all(layers["told"], path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with layers["following"].adapt(cache=folder / "cache", journal=folder / "journal.jsonl") as handle:
            taken = []
            for number in range(len(PHASES)):
                with quiet():
                    taken.append(phase(layers, traffic, number, seconds))
            decisions = [dict(decision) for decision in handle.decisions]
    finally:
        torch.set_num_threads(threads)
    return {"phases": taken, "decisions": decisions}


@torch.no_grad()
def phase(layers: dict[str, Layer], traffic: Traffic, number: int, seconds: float) -> dict[str, float]:
    """The seconds of the same calls in each mode."""
    taken = dict.fromkeys(layers, 0.0)
    requests = traffic.requests(number, seed=number)
    turns = [tuple(layers)[i:] + tuple(layers)[:i] for i in range(len(layers))]
    end = time.perf_counter() + seconds
    turn = 0
    while time.perf_counter() < end:
        inputs = [next(requests).x for _ in range(TURN)]
        turn += 1
        for mode in turns[turn % len(turns)]:
            layer = layers[mode]
            begin = time.perf_counter()
            for x in inputs:
                layer(x)
            taken[mode] += time.perf_counter() - begin
    return taken


def give_all(layer: Layer, path: Path) -> None:
    """Publish the variant of each range of tokens that gains anything."""
    store, policy = layer._store, layer.manifest.policy
    if policy is None:
        raise ValueError(f"{path} holds no policy")
    supply = Supply(read(path), layer.variant, Worker(), None)
    try:
        published = Published(Build(BASE, 0, store.kernel, store.buffer))
        for number, one in enumerate(regimes(policy), 1):
            if one.tokens is not None and range_gain(layer.manifest, one.tokens[1], layer.variant) > 1:
                code = bind(library(supply.submit(one).result(120).artifact), layer.variant)
                build = Build(one.name, number, code, transferred(code, store).packed)
                published = published.with_overlay(Overlay(*one.tokens, build))
        store.publish(published, store.generation)
    finally:
        supply.close()
