"""Measures a route on a shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from bench.cuda import data, peers
from bench.cuda.artifact import Compiled
from bench.cuda.reference import compare
from bench.cuda.results import Found
from bench.cuda.shapes import DECODE, Shape
from bench.cuda.table import Measured
from bench.cuda.timing import median_seconds, median_seconds_cold

LOOP, GROUPED, TRITON = "loop over experts", "torch._grouped_mm", "Triton"
ROUTES = ("moec", GROUPED, TRITON, LOOP)

_BATCHES = 4  # different ones, so that one call does not find the experts of the one before

Weights = Mapping[str, torch.Tensor]
Call = Callable[[torch.Tensor], torch.Tensor]


class Missing(Exception):
    """A peer that cannot run here, and why."""


def prefill(folder: Path, shape: Shape, route: str) -> Iterator[Found]:
    """A large batch; a result that is wrong is named so, and not timed."""
    seed, device = data.fresh_seed(), data.device()
    weights = data.weights(shape, device, seed)
    x = data.tokens(shape, shape.tokens, device, seed)
    yield _found(_measured(folder, shape, route, weights, [x], lambda calls: median_seconds(calls[0])))


def decode(folder: Path, shape: Shape, route: str) -> Iterator[Found]:
    """Small batches, captured in CUDA graphs."""
    seed, device = data.fresh_seed(), data.device()
    weights = data.weights(shape, device, seed)
    for count in DECODE:
        batches = [data.tokens(shape, count, device, seed + n) for n in range(_BATCHES)]
        chosen = math.ceil(sum(len(peers.route(shape, weights, x)[0].unique()) for x in batches) / _BATCHES)
        yield _found(_measured(folder, shape, route, weights, batches, median_seconds_cold), chosen)


def _measured(
    folder: Path,
    shape: Shape,
    route: str,
    weights: Weights,
    batches: list[torch.Tensor],
    time: Callable[[list[Callable[[], object]]], float],
) -> Measured:
    tokens = len(batches[0])
    try:
        call = _call(folder, shape, route, weights)
        for x in batches:
            outcome = compare(shape, weights, x, call(x))
            if not outcome.ok:
                return Measured(shape, tokens, route, None, f"wrong: {outcome}")
        return Measured(shape, tokens, route, time([lambda x=x: call(x) for x in batches]))  # type: ignore[misc]
    except Missing as why:
        return Measured(shape, tokens, route, None, str(why))
    except torch.OutOfMemoryError:
        return Measured(shape, tokens, route, None, "out of memory")


def _call(folder: Path, shape: Shape, route: str, weights: Weights) -> Call:
    """Raises Missing."""
    if route == "moec":
        return Compiled(folder, shape, weights)
    peer = _peer(route)
    return lambda x: peer(shape, weights, x)


def _peer(route: str) -> peers.Peer:
    if route == LOOP:
        return peers.loop
    if route == GROUPED:
        if not hasattr(torch, "_grouped_mm"):
            raise Missing(f"torch {torch.__version__} has none")
        return peers.grouped_mm
    try:
        from bench.cuda import triton_layer
    except ImportError as why:
        raise Missing(str(why)) from why
    return triton_layer.layer


def _found(one: Measured, experts: int | None = None) -> Found:
    said = one.why or (f"{one.seconds * 1e6:.1f} µs" if one.seconds is not None else "")
    wrong = one.route == "moec" and one.seconds is None
    return Found(f"{one.shape.name:8} T={one.tokens:<6} {one.route}: {said}", not wrong, one, experts)
