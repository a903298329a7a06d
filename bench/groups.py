"""Which cells are measured together: a group is one layer in one format, and one file of results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.routes import ROUTES
from bench.shapes import SHAPES, TOKENS

SWEEP = tuple(range(1, 65))
ODD_TOKENS = (1, 7, 16, 33, 100, 515, 2049)
MEASURED_THOROUGHLY = ("olmoe", "qwen3")
"""Layers that are also quantised, trained and skewed."""


@dataclass(frozen=True)
class Group:
    """`routes`: empty for all that have the format. `section`: the table of the report that shows the cells."""

    section: str
    shape: str
    format: str
    mode: str = "inference"
    routings: tuple[str, ...] = ("uniform",)
    tokens: tuple[int, ...] = TOKENS
    routes: tuple[str, ...] = ()
    rounds: int = 4
    turn_seconds: float = 0.12

    @property
    def name(self) -> str:
        return f"{self.section}-{self.format}-{self.shape}"

    @property
    def cells(self) -> int:
        return len(self.routings) * len(self.tokens)


PEERS = ("grouped_mm", "hf_grouped_mm", "zentorch", "vllm", "sglang", "ggml")
"""Routes that have been the best peer of some cell or may be, without those that never were."""


def _plain_routes(shape: str, format: str) -> tuple[str, ...]:
    slow = ("loop", "hf_eager") if shape in MEASURED_THOROUGHLY else ()
    return ("moec", *slow, *(name for name in PEERS if format in ROUTES[name].formats))


def _suite() -> Iterator[Group]:
    # Layer by layer, because making the weights of a layer takes seconds.
    for shape in SHAPES:
        odd = shape == "odd"
        for format in ("bf16", "f32"):
            section, tokens = ("sizes", ODD_TOKENS) if odd else ("inference", TOKENS)
            yield Group(section, shape, format, tokens=tokens, routes=_plain_routes(shape, format))
        if shape not in MEASURED_THOROUGHLY:
            continue
        skewed = ("zipf", "one", "few")
        yield Group("skew", shape, "bf16", routings=skewed, tokens=(16, 128, 512), routes=_plain_routes("", "bf16"))
        for format in ("int8", "int4", "ternary"):
            yield Group("quantised", shape, format)
        for format in ("bf16", "f32"):
            yield Group("training", shape, format, mode="training", tokens=(512, 2048), rounds=3)
        if shape == "olmoe":
            for format in ("bf16", "f32"):
                yield Group("sweep", shape, format, tokens=SWEEP, routes=("moec",), rounds=3, turn_seconds=0.05)
                yield Group("threads", shape, format, routes=("moec", "moec_1_thread"))


SUITE = tuple(_suite())
"""What docs/performance.md shows."""
