"""A module inside torch.compile, without and with other work around it."""

from __future__ import annotations

import torch

from tests.fuzz.tensors import Named
from tests.fuzz.ways.tried import Tried, require_same

COUNTS = (5, 1, 0, 33, 2, 130)


class _Between(torch.nn.Module):
    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, batch: Named) -> torch.Tensor:
        twice = {name: torch.cat([one, one]).flip(0) for name, one in batch.items()}
        y: torch.Tensor = self.layer(**twice)
        return y[: len(batch["x"])].flip(0)


def run(tried: Tried) -> None:
    torch._dynamo.reset()
    module = tried.module(keep_weights=bool(tried.sample.seed % 2))
    traced = torch.compile(_Between(module), fullgraph=True, dynamic=True, backend="aot_eager")
    invariant = tried.layer.manifest.guarantees.batch_invariant
    with torch.no_grad():
        for count in COUNTS:
            batch = tried.tokens(count)
            wanted = tried.layer(batch) if invariant else _Between(module)(batch)
            require_same(traced(batch), wanted, f"{count} tokens inside torch.compile")
