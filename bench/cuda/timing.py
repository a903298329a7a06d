"""Times on a GPU, by its own clock."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch

_ROUNDS = 25
_WARM = 3
_FLUSH_BYTES = 256 * 2**20  # more than any device's L2


def median_seconds(call: Callable[[], object], rounds: int = _ROUNDS) -> float:
    """The median time of a call; what it finds in the caches is what the call before has left."""
    for _ in range(_WARM):
        call()
    return statistics.median(_timed([call] * rounds))


def median_seconds_cold(calls: Sequence[Callable[[], object]], rounds: int = _ROUNDS) -> float:
    """The same for calls of few microseconds: each is captured in a graph, so that no time of the host is in it, and
    the L2 is flushed in front of each."""
    graphs = [_captured(call) for call in calls]
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    replays = [graphs[i % len(graphs)].replay for i in range(rounds)]
    return statistics.median(_timed(replays, flush.zero_))


def _timed(calls: Sequence[Callable[[], object]], before: Callable[[], object] | None = None) -> list[float]:
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in calls]
    for call, (begin, end) in zip(calls, events, strict=True):
        if before is not None:
            before()
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) * 1e-3 for begin, end in events]


def _captured(call: Callable[[], object]) -> torch.cuda.CUDAGraph:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph
