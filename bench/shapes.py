"""The layers that are measured: the sizes of published models, and one of odd sizes, each with its .moe file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Shape:
    """A softmax router, `experts` SwiGLU experts of width `ff` and `shared` more that see every token."""

    name: str
    title: str
    d: int
    ff: int
    experts: int
    top_k: int
    shared: int
    renormalise: bool
    family: str
    """Whose Hugging Face block computes the same."""
    source: str
    """File of the repository that describes the layer."""
    defines: tuple[tuple[str, int], ...] = ()
    """Parameters of that file that differ from its own."""

    @property
    def expert_weights(self) -> int:
        """Weights of one expert."""
        return 3 * self.d * self.ff

    @property
    def path(self) -> Path:
        return REPOSITORY / self.source


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("olmoe", "OLMoE", 2048, 1024, 64, 8, 0, False, "olmoe", "examples/olmoe.moe"),
        Shape("qwen3", "Qwen3", 2048, 768, 128, 8, 0, True, "qwen3_moe", "examples/qwen3_30b_a3b.moe"),
        Shape(
            "deepseek-v2-lite",
            "DeepSeek-V2-Lite",
            2048,
            1408,
            64,
            6,
            2,
            False,
            "deepseek_v2",
            "examples/deepseek_v2_lite.moe",
        ),
        Shape(
            "mixtral-small",
            "2048, 7168, 8, 2",
            2048,
            7168,
            8,
            2,
            0,
            True,
            "mixtral",
            "examples/mixtral_8x7b.moe",
            (("d", 2048), ("ff", 7168)),
        ),
        Shape("odd", "2056, 1032, 60, 4", 2056, 1032, 60, 4, 0, True, "mixtral", "bench/odd.moe"),
    )
}
TOKENS = (1, 4, 16, 128, 512, 2048)
ROUTINGS = ("uniform", "zipf", "one", "few")
"""How experts are picked: all alike; by Zipf(1.2); one expert by every token; most of the experts by no token."""
