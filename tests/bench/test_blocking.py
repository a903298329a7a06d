"""The layer without a schedule computes what the layer is."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F

from bench.parallel.blocking import PHASES, Blocking
from bench.parallel.sizes import Size
from tests.parallel.ranks import run

RANKS = 2
SIZE = Size(d=32, ff=24, count=6, k=2, tokens=9)


def expert(size: Size, number: int, rows: torch.Tensor) -> torch.Tensor:
    weights = {name: value.double() for name, value in size.expert(number).items()}
    gate, up = (F.linear(rows.double(), weights[name]) for name in ("gate", "up"))
    return F.linear(F.silu(gate) * up, weights["down"])


def calls() -> list[torch.Tensor]:
    """Both batches, and the second again without an exchange."""
    rank, local = dist.get_rank(), SIZE.count // RANKS

    def experts(rows: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(rows)
        for number in range(local):
            out[numbers == number] = expert(SIZE, rank * local + number, rows[numbers == number]).float()
        return out

    layer = Blocking(SIZE, experts)
    results = [layer(SIZE.x(rank, batch)) for batch in (0, 1)]
    layer.exchanging = False
    results.append(layer(SIZE.x(rank, 1)))
    assert list(layer.phases()) == list(PHASES)
    return results


def reference(x: torch.Tensor) -> torch.Tensor:
    p = F.linear(x.double(), SIZE.router().double()).softmax(-1)
    weight, index = p.topk(SIZE.k, -1)
    weight = weight / weight.sum(-1, keepdim=True)
    tokens = [
        sum((w * expert(SIZE, int(e), row) for w, e in zip(ws, es, strict=True)), torch.zeros(SIZE.d).double())
        for row, ws, es in zip(x, weight, index, strict=True)
    ]
    return torch.stack(tokens)


def test_blocking_exchange() -> None:
    for rank, (first, second, without) in enumerate(run(calls, RANKS)):
        for batch, y in enumerate((first, second)):
            torch.testing.assert_close(y.double(), reference(SIZE.x(rank, batch)), rtol=1e-5, atol=1e-6)
        assert torch.equal(without, second)
