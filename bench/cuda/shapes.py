"""The layers that are measured on GPUs, with the aims that docs/performance-gpu.md names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A layer of SwiGLU experts in bf16, or f16, behind a softmax router.

    tokens  of a large batch
    aim     TFLOP/s of the forward pass on an H100 at so many tokens; None: none was set
    trained whether the artifact can train the layer, too
    codes   the format of codes, with a scale for each channel, in which it is given the experts' weights; such a layer
            cannot be trained
    """

    name: str
    experts: int
    d: int
    ff: int
    top_k: int
    tokens: int
    aim: float | None = None
    trained: bool = False
    dtype: str = "bf16"
    codes: str | None = None

    @property
    def source(self) -> str:
        """The layer as a `.moe` file."""
        stored = f"{self.codes}(per = channel, x = {self.dtype}, prequantized = true)" if self.codes else self.dtype
        return (
            "edition 1\n\n"
            f"layer {self.name}(d = {self.d}, ff = {self.ff}) {{\n"
            f"  router softmax_top({self.top_k}, renorm = false) : f32\n"
            f"  experts routed[{self.experts}] = swiglu(d, ff) : {stored}\n"
            "  tokens dropless\n"
            "}\n"
        )

    @property
    def large(self) -> bool:
        """Whether float64 takes long on it."""
        return self.tokens > 10000

    def flops(self, tokens: int) -> int:
        """Of the experts; the router adds less than one percent."""
        return 2 * 3 * tokens * self.top_k * self.d * self.ff

    def expert_bytes(self, experts: int) -> int:
        """Bytes of the weights of so many experts."""
        return (1 if self.codes else 2) * 3 * experts * self.d * self.ff


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("E128", 128, 2048, 768, 8, 32768, aim=550.0),
        Shape("Narrow", 128, 1536, 256, 8, 24576, aim=364.0),
        Shape("Wide", 64, 4096, 1024, 4, 32768, aim=553.0),
    )
}
"""By name; decode is measured on the first."""

CODED = (
    Shape("E128Int8", 128, 2048, 768, 8, 32768, codes="int8"),
    Shape("E128Fp8", 128, 2048, 768, 8, 32768, codes="fp8_e4m3"),
)
"""The first with its experts as codes, measured beside it."""

CHECKED = {
    shape.name: shape
    for shape in (
        Shape("Small", 8, 256, 128, 2, 300, trained=True),
        Shape("Odd", 5, 264, 200, 3, 77, trained=True),
        Shape("Single", 1, 128, 64, 1, 130, trained=True),
        Shape("Half", 8, 264, 128, 2, 2100, trained=True, dtype="f16"),
        Shape("Codes", 6, 272, 144, 2, 260, codes="int8"),
        Shape("Floats8", 6, 272, 144, 2, 260, codes="fp8_e4m3"),
        Shape("Floats8Half", 5, 144, 80, 3, 70, dtype="f16", codes="fp8_e4m3"),
        *SHAPES.values(),
        *CODED,
    )
}
"""What results are checked on."""

DECODE = (1, 2, 4, 8, 16, 32, 64)
"""Tokens of small batches."""
