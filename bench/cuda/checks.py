"""Checks an artifact's kernels on the GPU against float64, on values nobody has seen before."""

from __future__ import annotations

from pathlib import Path

import torch

from bench.cuda import data, uses
from bench.cuda.artifact import Compiled
from bench.cuda.reference import compare
from bench.cuda.shapes import CHECKED, Shape
from bench.cuda.steps.run import Kernels

_COUNTS = (0, 1, 2, 17, 64)
_MOST = 16400
"""A little more tokens than the last kernel for many begins with."""


def check_all(folder: Path, small: bool) -> int:
    """Checks every shape, or only those that are small; prints a line for each, and gives how many are wrong."""
    wrong = 0
    for shape in CHECKED.values():
        if small and shape.large:
            continue
        for routing in data.ROUTINGS:
            wrong += not _check(folder, shape, routing)
            wrong += not _check_kernels(folder, shape, routing)
        wrong += not _check_uses(folder, shape)
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


def _check_kernels(folder: Path, shape: Shape, routing: str) -> bool:
    """Every kernel by itself, on calls of which each regime of tokens has some."""
    seed = data.fresh_seed()
    device = torch.device("cuda", torch.cuda.current_device())
    compiled = Compiled(folder, shape, data.weights(shape, device, seed, routing))
    kernels = Kernels(compiled.path, compiled.layer)
    sound, checked = True, set[str]()
    counts = {*kernels.regimes(_MOST), *_COUNTS, min(shape.tokens, _MOST)}
    for count in sorted(counts):
        x = data.tokens(shape, count, device, seed)
        findings = kernels.run(x)
        if shape.trained and count <= shape.tokens:
            findings += kernels.step(x, data.tokens(shape, count, device, seed + 9))
        checked |= {one.kernel for one in findings}
        for one in findings:
            if one.wrong:
                sound = False
                print(
                    f"  WRONG at T={count}: {one.kernel} writes `{one.what}` {one.note}, off by {one.worst:.1f} times "
                    "what is allowed"
                )
    left = {name for function in kernels.functions for name in kernels.names(function)} - checked
    text = f"{len(checked)} kernels one by one, T up to {max(counts)}"
    text += f"; not launched: {', '.join(sorted(left))}" if left else ""
    print(f"{'ok' if sound else 'WRONG':6} {shape.name:8} {routing:8} seed {seed:10}  {text}", flush=True)
    return sound


def _check_uses(folder: Path, shape: Shape) -> bool:
    """What PyTorch does with a layer: gradients, and compiling it."""
    seed = data.fresh_seed()
    device = torch.device("cuda", torch.cuda.current_device())
    weights = data.weights(shape, device, seed)
    compiled = Compiled(folder, shape, weights)
    x = data.tokens(shape, 33, device, seed)
    found = {"torch.compile": uses.compiled(compiled.layer, x)}
    if shape.trained:
        found["loss.backward()"] = uses.gradients(compiled.layer, shape, weights, x)
    for name, why in found.items():
        print(f"{'WRONG' if why else 'ok':6} {shape.name:8} {name} {why}", flush=True)
    return not any(found.values())


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
