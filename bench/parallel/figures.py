"""Measures a machine file: what pieces and links take while all ranks work at once."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
import torch.distributed as dist

from bench.parallel.links import connected, exchange, measured, plainly
from bench.parallel.loading import loaded
from bench.parallel.rank import below, quiet, rested
from bench.parallel.sizes import Size
from moec.runtime.parallel.network import Group
from moec.runtime.parallel.pieces import Compiled
from moec.schedule.machine import Cost, Link, Machine, fit

TURN = 0.5
"""Seconds that a piece is run over and over: every rank has had its turns on the processor many times."""
COPIED = 2**22
HANDLED = 2**16, 2**20
"""Bytes of the messages that are sent beside compute, of about the sizes that layers send."""
EXCHANGED = 8 * 2**20
"""Bytes that a rank sends to each other beside compute in one turn."""
TURNS = 3
STEP = 2e-4
"""Seconds to pack or relay at all."""


def on_a_rank(
    size: Mapping[str, int], artifact: str, mesh: Mapping[str, int], alone: bool, lock: str | None
) -> dict[str, Any]:
    """The text of a machine file, one for what torch's own all-to-all gives, and the links as they were measured."""
    wanted = Size(**size)
    layer = loaded(wanted, artifact, mesh)
    axes = [(name,) for name in mesh] + [tuple(mesh)]
    shape = layer.parallel.mesh
    groups = [connected(shape, one) for one in axes]
    pieces = {name: Compiled(piece) for name, piece in layer.pieces.items()}
    slots, pairs = layer.parallel.slots, wanted.tokens * wanted.k
    copied = torch.zeros(COPIED, dtype=torch.uint8)
    into = torch.empty_like(copied)
    with quiet(alone, lock):
        links = [measured(shape, one, group) for one, group in zip(axes, groups, strict=True)]
        plain = measured(shape, axes[-1], groups[-1], plainly)
        few = [max(1, wanted.tokens // part) for part in (16, 4, 1)]
        rows = [max(slots, pairs // part) for part in (64, 8, 4, 2, 1)]
        costs = {
            "route": fit([together(_route(pieces["route"], wanted, count)) for count in few], few, 1),
            "experts": fit(
                [together(_experts(pieces["experts"], wanted, slots, count)) for count in rows], rows, slots
            ),
            "collect": fit([together(_collect(pieces["collect"], wanted, count)) for count in few], few, 1),
        }
        copy = together(lambda: into.copy_(copied)) / COPIED
        byte, handling = taken_away(
            _experts(pieces["experts"], wanted, slots, max(slots, pairs // 16)), groups[-1], alone
        )
    single = {link.axes[0]: Link(link.bandwidth, link.latency) for link in links[:-1]}
    every, most = links[-1].latency, max(link.latency for link in links[:-1])
    machine = Machine(
        **costs,
        shared=Cost(0.0, 0.0, 0.0),
        copy=copy,
        step=STEP,
        message=max(0.0, every - most) / max(1, shape.ranks - 2),
        processor=byte,
        handling=handling,
        links=single,
        measured=True,
    )
    outermost = axes[-1][0]
    without = {**single, outermost: Link(plain.bandwidth, plain.latency)}
    return {
        "machine": machine.to_json(),
        "blocking": replace(machine, links=without).to_json(),
        "links": [asdict(link) for link in (*links, plain)],
    }


def together(run: Callable[[], object]) -> float:
    """Mean seconds of a run while all ranks run the same."""
    run()
    rested()
    begun, times = time.perf_counter(), 0
    while time.perf_counter() < begun + TURN:
        run()
        times += 1
    return _mean((time.perf_counter() - begun) / times)


def taken_away(run: Callable[[], object], group: Group, alone: bool) -> tuple[float, float]:
    """Seconds of compute that exchanges take away where processors compute and exchange at once: a byte, a message.

    Out and in are counted each. Exchanges of two sizes tell bytes from messages. A rank that has a part of a processor
    waits that much longer. As in layers, what travels comes from memory and not from a cache, and what computes goes
    behind what sends.
    """
    shared = max(1.0, group.size / _processors())
    few, many = (shared * _busy(run, group, size, alone) for size in HANDLED)
    byte = max(0.0, many - few) / (2 * (group.size - 1) * (HANDLED[1] - HANDLED[0]))
    return byte, max(0.0, few / (2 * (group.size - 1)) - byte * HANDLED[0])


def _busy(run: Callable[[], object], group: Group, size: int, alone: bool) -> float:
    """Seconds on processors that one exchange adds for this process: `size` bytes from each rank to each other."""
    number = max(1, EXCHANGED // size)
    out = torch.zeros(number, group.size, size, dtype=torch.uint8)
    into = torch.zeros_like(out)

    def exchanges() -> None:
        for given, taken in zip(out, into, strict=True):
            exchange(taken, given, group)

    def computed(beside: threading.Thread | None) -> tuple[int, float]:
        rested()
        end = time.perf_counter() + TURN
        busy, times = time.process_time(), 0
        if beside is not None:
            beside.start()
        with below(alone):
            while beside.is_alive() if beside is not None else time.perf_counter() < end:
                run()
                times += 1
        return times, time.process_time() - busy

    more = []
    for _ in range(TURNS):
        undisturbed, usual = computed(None)
        times, busy = computed(threading.Thread(target=exchanges))
        more.append(busy - times * usual / undisturbed)
    return _mean(statistics.median(more)) / number


def _processors() -> int:
    """Those of all ranks together."""
    used = torch.zeros(os.cpu_count() or 1)
    used[list(os.sched_getaffinity(0))] = 1
    dist.all_reduce(used, dist.ReduceOp.MAX)
    return int(used.sum())


def _mean(value: float) -> float:
    """Of all ranks."""
    every = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(every)
    return float(every) / dist.get_world_size()


def _route(piece: Compiled, size: Size, tokens: int) -> Callable[[], None]:
    x = torch.randn(tokens, size.d)
    index, weight = torch.empty(tokens, size.k, dtype=torch.int32), torch.empty(tokens, size.k)
    return lambda: piece([x], [index, weight])


def _experts(piece: Compiled, size: Size, slots: int, pairs: int) -> Callable[[], None]:
    """Slots are drawn: experts get unround numbers of rows, as routing gives them, which takes longer."""
    rows, out = torch.randn(pairs, size.d), torch.empty(pairs, size.d)
    source = torch.arange(pairs, dtype=torch.int32).unsqueeze(1)
    slot = torch.randint(slots, (pairs, 1), dtype=torch.int32, generator=torch.Generator().manual_seed(pairs))
    weight = torch.rand(pairs, 1)
    return lambda: piece([rows, source, slot, weight], [out])


def _collect(piece: Compiled, size: Size, tokens: int) -> Callable[[], None]:
    rows, y = torch.randn(tokens, size.k, size.d), torch.empty(tokens, size.d)
    places = torch.arange(tokens * size.k, dtype=torch.int32).view(tokens, size.k)
    return lambda: piece([rows, places], [y])
