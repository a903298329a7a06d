"""What a layer costs besides its arithmetic: compiling, packing, memory, and the way into native code and back."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from bench.layer import TORCH_DTYPE
from bench.shapes import Shape

TINY = """edition 1
layer Tiny(d = 16, ff = 16) {
  router softmax_top(1, renorm = false) : f32
  experts routed[2] = swiglu(d, ff) : f32
  tokens dropless
}
"""
CALLS = 2000
REPEATS = 7
SHOWN_FROM = 128  # tokens; below, a constant part outweighs the rows


@dataclass(frozen=True)
class Costs:
    """Seconds and bytes of one layer in one dtype."""

    shape: str
    dtype: str
    stages: dict[str, float]
    """Seconds of each stage of the compilation, imports done before."""
    load_seconds: float
    pack_seconds: float
    artifact_bytes: int
    weight_bytes: int
    packed_bytes: int
    workspace: dict[int, float]
    """Tokens to working memory, as a multiple of the tokens' permuted rows (tokens × top k × d values)."""

    @property
    def compile_seconds(self) -> float:
        return sum(self.stages.values())


def layer_costs(shape: Shape, dtype: str, tokens: Sequence[int], threads: int) -> Costs:
    """Compile, load and fill a layer with zeros, watching."""
    import moec
    from moec.artifact.container import read
    from moec.runtime import native

    stages: dict[str, float] = {}

    def observe(stage: str, seconds: float) -> None:
        stages[stage] = stages.get(stage, 0.0) + seconds

    with tempfile.TemporaryDirectory() as folder:
        defines = {**dict(shape.defines), "dtype": dtype}
        artifact = moec.compile(shape.path, Path(folder) / "layer.so", defines=defines, observe=observe)
        begun = time.perf_counter()
        module = moec.load(artifact)
        loaded = time.perf_counter()
        size = artifact.stat().st_size
        kernel = native.kernel(native.library(read(artifact)).sha256, module.variant)
    state = {name: torch.zeros(value.shape, dtype=value.dtype) for name, value in module.named_parameters()}
    filled = time.perf_counter()
    module.load_state_dict(state)
    packed = time.perf_counter()
    row_bytes = shape.top_k * shape.d * TORCH_DTYPE[dtype].itemsize
    return Costs(
        shape.name,
        dtype,
        stages,
        loaded - begun,
        packed - filled,
        size,
        sum(value.nbytes for value in state.values()),
        module.packed_bytes,
        {t: kernel.workspace_bytes(t, threads) / (t * row_bytes) for t in tokens},
    )


def _call_seconds(call: Callable[[torch.Tensor], object], x: torch.Tensor) -> float:
    """Median over REPEATS of the mean of CALLS calls."""
    means = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        for _ in range(CALLS):
            call(x)
        means.append((time.perf_counter() - begun) / CALLS)
    return statistics.median(means)


@torch.no_grad()
def call_overhead() -> dict[str, float]:
    """Seconds of calling a layer that computes next to nothing, beside the same call of a torch module."""
    import moec

    x = torch.randn(1, 16)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "tiny.moe"
        source.write_text(TINY)
        module = moec.load(moec.compile(source)).reset_parameters(seed=0)
    return {"moec": _call_seconds(module, x), "torch.nn.Linear": _call_seconds(torch.nn.Linear(16, 16), x)}


def costs_table(costs: Sequence[Costs]) -> Table:
    """KiB: the artifact; packed: packed over ordinary weights; T=…: working memory over the tokens' permuted rows."""
    out = Table(title="Costs", title_justify="left", box=None, padding=(0, 1, 0, 0), header_style="dim")
    for heading in ("layer", "dtype"):
        out.add_column(heading, no_wrap=True)
    tokens = [count for count in costs[0].workspace if count >= SHOWN_FROM]
    headings = ("compile s", "load ms", "pack s", "KiB", "packed", *(f"T={count}" for count in tokens))
    for heading in headings:
        out.add_column(heading, justify="right", no_wrap=True)
    for cost in costs:
        out.add_row(
            cost.shape,
            cost.dtype,
            f"{cost.compile_seconds:.2f}",
            f"{cost.load_seconds * 1e3:.0f}",
            f"{cost.pack_seconds:.2f}",
            f"{cost.artifact_bytes / 1024:.0f}",
            f"{cost.packed_bytes / cost.weight_bytes:.2f}",
            *(f"{cost.workspace[count]:.2f}" for count in tokens),
        )
    return out


def costs_json(costs: Sequence[Costs], overhead: dict[str, float]) -> dict[str, Any]:
    layers = [asdict(cost) | {"compile_seconds": cost.compile_seconds} for cost in costs]
    return {"layers": layers, "call_seconds": overhead}
