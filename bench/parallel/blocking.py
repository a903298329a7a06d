"""The layer without a schedule: what a person writes in PyTorch by hand, and FastMoE (arXiv:2103.13262) does.

One copy of a token's row goes to each of its experts, by one blocking all-to-all; rows come back by another. Counts are
exchanged before, and waited for. Only the experts are computed by a compiled layer, so that a comparison is one of
communication.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.distributed as dist
import torch.nn.functional as F

from bench.parallel.sizes import Size

Experts = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Rows [P, d] and the numbers i32 [P] of their experts, counted on the rank from 0, to [P, d]."""
PHASES = ("route", "pack", "counts", "dispatch", "experts", "combine", "collect")


class Blocking:
    """`layer(x [T, d]) -> y [T, d]` on the default process group; a call's parts are timed."""

    def __init__(self, size: Size, experts: Experts) -> None:
        self.size, self.experts = size, experts
        self.ranks = dist.get_world_size()
        self.local = size.count // self.ranks
        self.router = size.router()
        self.marks: list[float] = []
        self.exchanging = True
        """Off, nothing travels: what was exchanged last is computed with again."""
        self._kept: dict[str, torch.Tensor] = {}

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.marks = [time.perf_counter()]
        weight, index = F.linear(x, self.router).softmax(-1).topk(self.size.k, -1)
        weight = weight / weight.sum(-1, keepdim=True)
        self._mark()

        order = index.flatten().argsort(stable=True)  # pairs by expert, and so by rank
        rows = x[order // self.size.k]
        sent = torch.bincount(index.flatten(), minlength=self.size.count).view(self.ranks, self.local)
        self._mark()

        received = self._exchange("counts", torch.empty_like(sent), sent)
        out_sizes, in_sizes = sent.sum(-1).tolist(), received.sum(-1).tolist()
        self._mark()

        arrived = self._exchange("dispatch", x.new_empty(sum(in_sizes), x.shape[1]), rows, in_sizes, out_sizes)
        self._mark()

        numbers = torch.arange(self.local, dtype=torch.int32).repeat(self.ranks)
        done = self.experts(arrived, numbers.repeat_interleave(received.flatten()))
        self._mark()

        back = self._exchange("combine", torch.empty_like(rows), done, out_sizes, in_sizes)
        self._mark()

        slots = torch.empty_like(back)
        slots[order] = back
        y = (slots.view(*index.shape, -1) * weight.unsqueeze(-1)).sum(1)
        self._mark()
        return y

    def _exchange(
        self,
        what: str,
        into: torch.Tensor,
        out: torch.Tensor,
        in_sizes: list[int] | None = None,
        out_sizes: list[int] | None = None,
    ) -> torch.Tensor:
        if not self.exchanging:
            return self._kept[what]
        dist.all_to_all_single(into, out, in_sizes, out_sizes)
        self._kept[what] = into
        return into

    def phases(self) -> dict[str, float]:
        """Seconds of each part of the last call. An exchange contains the wait for slower ranks."""
        return {name: b - a for name, (a, b) in zip(PHASES, pairwise(self.marks), strict=True)}

    def _mark(self) -> None:
        self.marks.append(time.perf_counter())
