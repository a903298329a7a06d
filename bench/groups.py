"""Which cells are measured together: a group is one layer in one format, and one file of results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.shapes import SHAPES, TOKENS

SWEEP = tuple(range(1, 65))


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
    rounds: int = 5
    turn_seconds: float = 0.12

    @property
    def name(self) -> str:
        return f"{self.section}-{self.format}-{self.shape}"

    @property
    def cells(self) -> int:
        return len(self.routings) * len(self.tokens)


def _suite() -> Iterator[Group]:
    # Layer by layer, because making the weights of a layer takes seconds.
    for shape in SHAPES:
        for format in ("bf16", "f32"):
            yield Group("inference", shape, format)
        if shape == "olmoe":
            yield Group("sweep", shape, "bf16", tokens=SWEEP, routes=("moec",), rounds=3, turn_seconds=0.05)
            for format in ("bf16", "f32"):
                yield Group("threads", shape, format, routes=("moec", "moec_1_thread"))
        if shape == "qwen3":
            yield Group("skew", shape, "bf16", routings=("zipf", "one", "few"), tokens=(16, 128, 512))
        if shape in ("olmoe", "qwen3"):
            for format in ("int8", "int4", "ternary"):
                yield Group("quantised", shape, format)
            for format in ("bf16", "f32"):
                yield Group("training", shape, format, mode="training", tokens=(512, 2048), rounds=3)


SUITE = tuple(_suite())
"""What docs/performance.md shows."""
