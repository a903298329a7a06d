"""Measures every route on every shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from bench.cuda import data, peers
from bench.cuda.artifact import Compiled
from bench.cuda.peers import Peer
from bench.cuda.reference import compare
from bench.cuda.shapes import CODED, DECODE, SHAPES, Shape
from bench.cuda.table import Measured
from bench.cuda.timing import median_seconds, median_seconds_cold

_BATCHES = 4  # different ones, so that one call does not find the experts of the one before


def routes() -> Mapping[str, Peer | str]:
    """The peers by name; a text says why one cannot run here."""
    found: dict[str, Peer | str] = {"loop over experts": peers.loop}
    found["torch._grouped_mm"] = peers.grouped_mm if hasattr(torch, "_grouped_mm") else "this torch has none"
    try:
        from bench.cuda import triton_layer
    except ImportError as why:
        found["Triton"] = str(why)
    else:
        found["Triton"] = triton_layer.layer
    return found


def _coded(weights: Mapping[str, torch.Tensor]) -> Iterator[tuple[Shape, Mapping[str, torch.Tensor]]]:
    """The shapes whose experts are codes, and these codes of the same weights."""
    for one in CODED:
        yield one, data.coded(weights, one)


def prefill(folder: Path) -> list[Measured]:
    """Large batches of every shape, by moec and its peers; a peer whose result is wrong is named so."""
    rows = []
    for shape in SHAPES.values():
        seed = data.fresh_seed()
        device = torch.device("cuda", torch.cuda.current_device())
        weights = data.weights(shape, device, seed)
        x = data.tokens(shape, shape.tokens, device, seed)
        compiled = Compiled(folder, shape, weights)
        rows.append(_one(shape, x, weights, "moec", lambda: compiled(x), median_seconds))  # noqa: B023
        for name, peer in routes().items():
            rows.append(_peer(shape, x, weights, name, peer, median_seconds))
        if shape is next(iter(SHAPES.values())):
            for one, codes in _coded(weights):
                of_codes = Compiled(folder, one, codes)
                rows.append(_one(one, x, codes, "moec", lambda: of_codes(x), median_seconds))  # noqa: B023
    return rows


def decode(folder: Path) -> tuple[list[Measured], list[int]]:
    """Small batches of the first shape, in bf16 and as codes, captured in CUDA graphs; and how many experts each
    batch chooses."""
    shape = next(iter(SHAPES.values()))
    seed = data.fresh_seed()
    device = torch.device("cuda", torch.cuda.current_device())
    weights = data.weights(shape, device, seed)
    compiled = {one: Compiled(folder, one, given) for one, given in ((shape, weights), *_coded(weights))}
    rows, experts = [], []
    for count in DECODE:
        batches = [data.tokens(shape, count, device, seed + n) for n in range(_BATCHES)]
        chosen = math.ceil(sum(_chosen(shape, weights, x) for x in batches) / _BATCHES)
        for one, layer in compiled.items():
            calls = [lambda x=x, layer=layer: layer(x) for x in batches]
            rows.append(Measured(one, count, "moec", median_seconds_cold(calls)))
            experts.append(chosen)
        for name, peer in routes().items():
            if name == "loop over experts":  # it asks the device how many rows there are: no graph can hold it
                continue
            if isinstance(peer, str):
                rows.append(Measured(shape, count, name, None, peer))
            else:
                of_peer = [lambda x=x, peer=peer: peer(shape, weights, x) for x in batches]
                rows.append(Measured(shape, count, name, median_seconds_cold(of_peer)))
            experts.append(chosen)
    return rows, experts


def _chosen(shape: Shape, weights: Mapping[str, torch.Tensor], x: torch.Tensor) -> int:
    return len(peers.route(shape, weights, x)[0].unique())


def _peer(
    shape: Shape,
    x: torch.Tensor,
    weights: Mapping[str, torch.Tensor],
    name: str,
    peer: Peer | str,
    time: Callable[[Callable[[], object]], float],
) -> Measured:
    if isinstance(peer, str):
        return Measured(shape, len(x), name, None, peer)
    return _one(shape, x, weights, name, lambda: peer(shape, weights, x), time)


def _one(
    shape: Shape,
    x: torch.Tensor,
    weights: Mapping[str, torch.Tensor],
    name: str,
    call: Callable[[], torch.Tensor],
    time: Callable[[Callable[[], object]], float],
) -> Measured:
    try:
        outcome = compare(shape, weights, x, call())
        if not outcome.ok:
            return Measured(shape, len(x), name, None, f"wrong: {outcome}")
        return Measured(shape, len(x), name, time(call))
    except torch.OutOfMemoryError:
        return Measured(shape, len(x), name, None, "out of memory")
