"""The layer that is measured over ranks, its weights and its tokens: the same on every rank, without sending any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("layer.moe")
LOADED = 2048
"""Tokens of the load in SOURCE."""
SCALE = 0.02


@dataclass(frozen=True)
class Size:
    """A softmax router that chooses `k` of `count` SwiGLU experts, f32; `tokens` on every rank."""

    d: int = 1024
    ff: int = 1408
    count: int = 32
    k: int = 8
    tokens: int = 512

    @property
    def defines(self) -> Mapping[str, int]:
        """The parameters of the layer `Bench`."""
        return {"d": self.d, "ff": self.ff, "count": self.count, "k": self.k}

    def source(self, ranks: int) -> str:
        """The text of SOURCE, with the load of so many ranks: schedules are chosen for it."""
        return SOURCE.read_text().replace(f"1..{LOADED}", f"1..{self.tokens * ranks}")

    def local(self, ranks: int) -> Mapping[str, int]:
        """The parameters of the layer `Local`: the experts of one of so many ranks."""
        return {"d": self.d, "ff": self.ff, "count": self.count // ranks}

    def router(self) -> torch.Tensor:
        """[count, d]: rows of one length, so that tokens choose all experts about equally often."""
        weight = torch.randn(self.count, self.d, generator=torch.Generator().manual_seed(0))
        lengths: torch.Tensor = torch.linalg.vector_norm(weight, dim=-1, keepdim=True)
        return weight / lengths

    def expert(self, number: int) -> Mapping[str, torch.Tensor]:
        """The weights of one expert: gate and up [ff, d], down [d, ff]."""
        generator = torch.Generator().manual_seed(1 + number)
        shapes = {"gate": (self.ff, self.d), "up": (self.ff, self.d), "down": (self.d, self.ff)}
        return {name: SCALE * torch.randn(*shape, generator=generator) for name, shape in shapes.items()}

    def experts(self, numbers: range) -> Mapping[str, torch.Tensor]:
        """Those of several, stacked, under the names of the layers' parameters; the last ones asked for are kept."""
        return _experts(self, numbers)

    def x(self, rank: int, batch: int = 0) -> torch.Tensor:
        """A rank's tokens [tokens, d] of one batch."""
        return torch.randn(self.tokens, self.d, generator=torch.Generator().manual_seed(10_000 * (rank + 1) + batch))


@lru_cache(maxsize=1)
def _experts(size: Size, numbers: range) -> Mapping[str, torch.Tensor]:
    every = [size.expert(number) for number in numbers]
    return {f"routed.{name}.weight": torch.stack([one[name] for one in every]) for name in every[0]}
