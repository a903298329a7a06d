"""The training functions of tests/ir/training_sample.mlir in other sizes, compiled and called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from moec.backends.cpu import isa
from tests.backends.cpu.artifact import DTYPES, Artifact, aligned

SAMPLE = Path(__file__).parents[2] / "ir" / "training_sample.mlir"


@dataclass(frozen=True)
class Sizes:
    d: int
    ff: int
    experts: int
    k: int
    dtype: str = "bf16"

    def text(self) -> str:
        """The sample with these sizes instead of 24, 10, 6, 2 and bf16."""
        new = {"24": self.d, "10": self.ff, "6": self.experts, "2": self.k, "7": self.experts + 1}

        def dims(match: re.Match[str]) -> str:
            return re.sub(r"\d+(?=x|, |\]|$)", lambda n: str(new.get(n[0], n[0])), match[0])

        text = re.sub(r"tensor<[^>]*>|output_shape \[1, [^]]*\]", dims, SAMPLE.read_text())
        text = re.sub(r"(\bk|slots_per_token) = 2", rf"\1 = {self.k}", text).replace(
            "experts = 6", f"experts = {self.experts}"
        )
        return _widened(text) if self.dtype == "f32" else text.replace("bf16", self.dtype)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        up, down = (self.experts, self.ff, self.d), (self.experts, self.d, self.ff)
        return {
            "router.logits.weight": (self.experts, self.d),
            "routed.gate.weight": up,
            "routed.up.weight": up,
            "routed.down.weight": down,
        }

    def given(self, tokens: int, seed: int = 0) -> dict[str, torch.Tensor]:
        """Random x and parameters, and gradients of the outputs."""
        random = torch.Generator().manual_seed(seed)
        dtype = DTYPES[self.dtype]
        draw = lambda *shape: torch.randn(*shape, generator=random)  # noqa: E731
        weights = {name: draw(*shape) / shape[-1] ** 0.5 for name, shape in self.shapes().items()}
        typed = {name: w if "router" in name else w.to(dtype) for name, w in weights.items()}
        seeds = {"d.y": draw(tokens, self.d).to(dtype), "d.probability": draw(tokens, self.experts)}
        return {"x": draw(tokens, self.d).to(dtype), **typed, **seeds, "d.z": draw(tokens, 1)}


def _widened(text: str) -> str:
    """All of it in f32: conversions become names for what they convert."""
    lines, names = [], dict[str, str]()
    for line in text.split("\n"):
        replaced = re.sub(r"%\w+", lambda name: names.get(name[0], name[0]), line)
        conversion = re.match(r"\s*(%\w+) = arith\.(?:trunc|ext)f (%\w+)", line)
        if conversion:
            names[conversion[1]] = names.get(conversion[2], conversion[2])
            continue
        defined = re.match(r"\s*((?:%\w+, )*%\w+) =", line)
        for name in defined[1].split(", ") if defined else ():
            names.pop(name, None)
        lines.append(re.sub(r"%\w+", lambda name: names.get(name[0], name[0]), line) if defined else replaced)
    return "\n".join(lines).replace("bf16", "f32")


class Trained(Artifact):
    """An artifact with forward and backward."""

    def __init__(self, sizes: Sizes, variants: Sequence[isa.Variant] | None = None) -> None:
        super().__init__(sizes.text(), variants)
        self.sizes = sizes

    def call(
        self, entry: str, given: Mapping[str, torch.Tensor], tokens: int, *, variant: int = 0, threads: int = 1
    ) -> dict[str, torch.Tensor]:
        """The results of an entry by name, memory for them filled with NaN."""
        layer = self.functions[entry]
        workspace = aligned(self.library[f"{entry}_workspace_bytes"](variant, tokens, threads))
        results = {}
        for name, shape, dtype in layer.results:
            rows = tokens * self.sizes.k if name in ("routed.gate", "routed.up") else tokens
            dims = [rows if n < 0 else n for n in shape]
            empty = torch.empty(dims, dtype=DTYPES[dtype])
            results[name] = empty.fill_(float("nan")) if empty.is_floating_point() else empty.fill_(-7)
        arguments = [given[name] for name in layer.arguments]
        self.library[entry](variant, threads, workspace, *arguments, *results.values())
        return results


trained = cache(Trained)
