"""A layer of small experts on real ranks, as simple as can be: what moving experts is tested with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.distributed as dist

from moec.placement.problem import Placement
from moec.placement.table import Table
from moec.runtime.parallel.moving.gate import Active
from moec.runtime.parallel.moving.layers import Movable
from moec.runtime.parallel.moving.moving import Moving, Options
from moec.runtime.parallel.moving.rules import Rules
from tests.parallel.moving.tensors import TensorSlots

D, K = 8, 2
FAST = Options(share=1.0, piece=64, pace=0.01, look=None, timeout=120.0)


def weights(experts: int) -> torch.Tensor:
    return torch.randn(experts, D, D, generator=torch.Generator().manual_seed(7))


class Toy:
    """The part of one rank; `call` makes a step on `group`, whose ranks are the first of all."""

    def __init__(self, table: Table, rules: Rules | None = None, memory: type[TensorSlots] = TensorSlots):
        self.rank = dist.get_rank()
        self.whole = weights(table.experts)
        self.slots = torch.full((table.slots, D, D), torch.nan)
        self.chosen = np.zeros(table.experts, np.int64)
        self.busy = 0.0
        if self.rank < table.positions:
            for slot, expert in enumerate(table.held[self.rank]):
                if expert >= 0:
                    self.slots[slot] = self.whole[expert]
        self.movable = Movable(
            "toy",
            memory({"w": self.slots}),
            table,
            tuple(range(dist.get_world_size())),
            lambda: self.chosen,
            lambda: self.busy,
            lambda _: None,
            lambda *_: None,
            rules or Rules(),
        )

    def call(self, active: Active, x: torch.Tensor, index: np.ndarray, group: dist.ProcessGroup | None) -> torch.Tensor:
        """`y[t] = sum of w[e] @ x[t]` over the experts of a token, ascending; all ranks have as many tokens."""
        lookup = active.lookups[0]
        assert lookup is not None
        index = np.sort(index, 1)
        np.add.at(self.chosen, index, 1)
        ranks, tokens = dist.get_world_size(group), len(x)
        holder, slot = (torch.from_numpy(each) for each in lookup(index.astype(np.int32)))
        rows, holders, slots = (gathered(each, ranks, group) for each in (x, holder, slot))
        out = torch.zeros(ranks * tokens, K, D)
        begin = time.perf_counter()
        for token, pair in (holders == self.rank).nonzero().tolist():
            out[token, pair] = self.slots[slots[token, pair]] @ rows[token]
        self.busy += time.perf_counter() - begin
        dist.all_reduce(out, group=group)
        mine = out[self.rank * tokens : (self.rank + 1) * tokens]
        return mine[:, 0] + mine[:, 1]

    def right(self, y: torch.Tensor, x: torch.Tensor, index: np.ndarray) -> bool:
        wanted = [self.whole[a] @ row + self.whole[b] @ row for row, (a, b) in zip(x, np.sort(index, 1), strict=True)]
        return torch.equal(y, torch.stack(wanted))


def gathered(tensor: torch.Tensor, ranks: int, group: dist.ProcessGroup | None) -> torch.Tensor:
    found = [torch.empty_like(tensor) for _ in range(ranks)]
    dist.all_gather(found, tensor.contiguous(), group)
    return torch.cat(found)


def batch(step: int, rank: int, experts: int, tokens: int = 5) -> tuple[torch.Tensor, np.ndarray]:
    random = np.random.default_rng((step, rank))
    x = torch.from_numpy(random.standard_normal((tokens, D)).astype(np.float32))
    return x, np.stack([random.choice(experts, K, replace=False) for _ in range(tokens)])


def start(toys: Sequence[Toy], options: Options = FAST) -> Moving:
    return Moving([toy.movable for toy in toys], range(dist.get_world_size()), options)


def run_until(
    toy: Toy,
    moving: Moving,
    done: Callable[[], bool],
    groups: Mapping[int, dist.ProcessGroup] | None = None,
    hot: int | None = None,
    seconds: float = 180.0,
) -> list[tuple[int, int, int]]:
    """Steps, each checked, until `done` says so on the first rank: (number, version of the tables, ranks) of each.

    With `groups`, one for each number of ranks, a rank that does not serve waits until it does, or moving ends.
    Tokens choose among the first `hot` experts.
    """
    made = []
    end = time.monotonic() + seconds
    while True:
        active = moving.begin()
        if not active.serves:
            if not moving.join():
                return made
            continue
        table = active.tables[0]
        group = None if groups is None else groups[table.positions]
        x, index = batch(moving.gate.step, toy.rank, table.experts if hot is None else hot)
        assert toy.right(toy.call(active, x, index, group), x, index)
        made.append((moving.gate.step, active.version, table.positions))
        stop = torch.tensor([int(toy.rank == 0 and done())])
        dist.broadcast(stop, 0, group)
        if stop:
            return made
        assert time.monotonic() < end


def random_table(random: np.random.Generator, old: Table) -> Table:
    """Another table of as many positions: some experts with copies, all slots used or not."""
    free = [old.slots] * old.positions
    holders: list[list[int]] = []
    for expert in range(old.experts):
        left = old.experts - expert - 1
        open_to = [at for at in range(old.positions) if free[at]]
        most = max(1, min(len(open_to), sum(free) - left))
        found = random.choice(open_to, int(random.integers(1, most + 1)), replace=False).tolist()
        holders.append(sorted(found))
        for at in found:
            free[at] -= 1
    return old.following(Placement.even(holders))


def alive(name: str) -> bool:
    return any(thread.name == name and thread.is_alive() for thread in threading.enumerate())
