"""Checks an artifact's kernels on the GPU against float64, on values nobody has seen before."""

from __future__ import annotations

from pathlib import Path

import torch

from bench.cuda import data
from bench.cuda.artifact import Compiled
from bench.cuda.reference import compare
from bench.cuda.shapes import CHECKED, SHAPES, Shape

_COUNTS = (0, 1, 2, 17, 64)


def check_all(folder: Path, small: bool) -> int:
    """Checks every shape, or only those that are small; prints a line for each, and gives how many are wrong."""
    wrong = 0
    for shape in CHECKED.values():
        if small and shape.name in SHAPES:
            continue
        for routing in data.ROUTINGS:
            wrong += not _check(folder, shape, routing)
    return wrong


def _check(folder: Path, shape: Shape, routing: str) -> bool:
    seed = data.fresh_seed()
    device = torch.device("cuda", torch.cuda.current_device())
    weights = data.weights(shape, device, seed, routing)
    layer = Compiled(folder, shape, weights)
    sound, worst, compared = True, 0.0, 0
    for count in (*_COUNTS, shape.tokens):
        x = data.tokens(shape, count, device, seed)
        result = layer.poisoned(x)
        outcome = compare(shape, weights, x, result)
        # The same call through the module, and again, gives the same bits.
        same = torch.equal(result, layer(x)) and torch.equal(result, layer.poisoned(x))
        sound = sound and outcome.ok and same
        worst, compared = max(worst, outcome.worst), compared + outcome.tokens
        if not (outcome.ok and same):
            print(f"  WRONG at T={count}: {outcome}, same bits again: {same}")
    graph_ok = _captured(layer, data.tokens(shape, 17, device, seed + 7))
    verdict = "ok" if sound and graph_ok else "WRONG"
    text = f"worst relative error {worst:.1e} of {compared} tokens, in a CUDA graph: {'ok' if graph_ok else 'WRONG'}"
    print(f"{verdict:6} {shape.name:8} {routing:8} seed {seed:10}  {text}", flush=True)
    return sound and graph_ok


def _captured(layer: Compiled, x: torch.Tensor) -> bool:
    """Whether replays of a captured call follow what is written into its input."""
    held = torch.zeros_like(x)
    layer(held)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = layer(held)
    held.copy_(x)
    graph.replay()
    return torch.equal(y, layer(x))
