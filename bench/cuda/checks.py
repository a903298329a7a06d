"""Checks an artifact's kernels on the GPU against float64, on values nobody has seen before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from bench.cuda import data, uses
from bench.cuda.artifact import Compiled
from bench.cuda.reference import compare
from bench.cuda.results import Found
from bench.cuda.shapes import Shape
from bench.cuda.steps.run import Kernels

_COUNTS = (0, 1, 2, 17, 64)
_MOST = 16400
"""A little more tokens than the last kernel for many begins with."""


def layer(folder: Path, shape: Shape, routing: str) -> Iterator[Found]:
    """The whole layer, with results and workspace poisoned, from no token to a large batch."""
    seed, device = data.fresh_seed(), data.device()
    weights = data.weights(shape, device, seed, routing)
    compiled = Compiled(folder, shape, weights)
    worst, compared = 0.0, 0
    for count in (*_COUNTS, shape.tokens):
        x = data.tokens(shape, count, device, seed)
        result = compiled.poisoned(x)
        outcome = compare(shape, weights, x, result)
        # The same call through the module, and again, gives the same bits.
        same = torch.equal(result, compiled(x)) and torch.equal(result, compiled.poisoned(x))
        worst, compared = max(worst, outcome.worst), compared + outcome.tokens
        if not (outcome.ok and same):
            text = f"{shape.name} {routing} seed {seed}: T={count}: {outcome}, same bits again: {same}"
            yield Found(f"WRONG  layer {text}", sound=False)
    text = f"worst relative error {worst:.1e} of {compared} tokens"
    yield Found(f"done   layer {shape.name:8} {routing:8} seed {seed:10}  {text}")


def kernels(folder: Path, shape: Shape, routing: str) -> Iterator[Found]:
    """Every kernel by itself, on calls of which each regime of tokens has some."""
    seed, device = data.fresh_seed(), data.device()
    compiled = Compiled(folder, shape, data.weights(shape, device, seed, routing))
    checked = Kernels(compiled.path, compiled.layer)
    seen = set[str]()
    counts = {*checked.regimes(_MOST), *_COUNTS, min(shape.tokens, _MOST)}
    for count in sorted(counts):
        x = data.tokens(shape, count, device, seed)
        findings = checked.run(x)
        if shape.trained and count <= shape.tokens:
            findings += checked.step(x, data.tokens(shape, count, device, seed + 9))
        seen |= {one.kernel for one in findings}
        for one in findings:
            if one.wrong:
                text = f"{shape.name} {routing} seed {seed}: T={count}: {one.kernel} writes `{one.what}` {one.note}"
                yield Found(f"WRONG  {text}, off by {one.worst:.1f} times what is allowed", sound=False)
    left = {name for function in checked.functions for name in checked.names(function)} - seen
    text = f"{len(seen)} kernels one by one, T up to {max(counts)}"
    text += f"; not launched: {', '.join(sorted(left))}" if left else ""
    yield Found(f"done   kernels {shape.name:8} {routing:8} seed {seed:10}  {text}")


def captured(folder: Path, shape: Shape) -> Iterator[Found]:
    """Whether replays of a captured call follow what is written into its input."""
    seed, device = data.fresh_seed(), data.device()
    compiled = Compiled(folder, shape, data.weights(shape, device, seed))
    for count in (1, 17, shape.tokens):
        x = data.tokens(shape, count, device, seed)
        held = torch.zeros_like(x)
        compiled(held)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = compiled(held)
        held.copy_(x)
        graph.replay()
        same = torch.equal(y, compiled(x))
        yield Found(f"{_verdict(same)} {shape.name:8} in a CUDA graph, T={count}", same)


def used(folder: Path, shape: Shape) -> Iterator[Found]:
    """What PyTorch does with a layer: gradients, and compiling it."""
    seed, device = data.fresh_seed(), data.device()
    weights = data.weights(shape, device, seed)
    compiled = Compiled(folder, shape, weights)
    x = data.tokens(shape, 33, device, seed)
    if shape.trained:
        why = uses.gradients(compiled.layer, shape, weights, x)
        yield Found(f"{_verdict(not why)} {shape.name:8} loss.backward() {why}", not why)
    why = uses.compiled(compiled.layer, x)
    yield Found(f"{_verdict(not why)} {shape.name:8} torch.compile {why}", not why)


def _verdict(sound: bool) -> str:
    return "ok    " if sound else "WRONG "
