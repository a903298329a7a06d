"""The layers that are measured on GPUs, with the aims that docs/performance-gpu.md names."""

from __future__ import annotations

from dataclasses import dataclass

from moec.formats import FORMATS


@dataclass(frozen=True)
class Shape:
    """A layer of SwiGLU experts in bf16, or f16, behind a softmax router.

    tokens  of a large batch
    aim     TFLOP/s of the forward pass on an H100 at so many tokens; None: none was set
    trained whether the artifact can train the layer, too
    codes   the format in which the experts' weights are kept; such a layer cannot be trained
    group   inputs that have a scale, in bf16; None: all of a channel, with one in f32
    given   whether the layer is given codes and scales; else it makes them
    rounded whether the rows that codes multiply are rounded to int8
    some    how many experts, the first ones, are kept in that format, of codes that the layer makes; None: all
    shared  hidden sizes of shared experts, which are floats; two such experts for each
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
    group: int | None = None
    given: bool = True
    some: int | None = None
    rounded: bool = False
    shared: tuple[int, ...] = ()

    @property
    def source(self) -> str:
        """The layer as a `.moe` file."""
        scales = "per = channel" if self.group is None else f"group = {self.group}"
        given = ", prequantized = true" if self.given else ""
        stored = f"{self.codes}({scales}, x = {self.dtype}{given})" if self.codes and not self.some else self.dtype
        last = f"  quantize experts(routed, 0..{self.some - 1}) as {self.codes}({scales})\n" if self.some else ""
        approx = "  approx rows as int8\n" if self.rounded else ""
        beside = "".join(
            f"  shared common{n}[2] = swiglu(d, {ff}) : {self.dtype}\n" for n, ff in enumerate(self.shared)
        )
        return (
            "edition 1\n\n"
            f"layer {self.name}(d = {self.d}, ff = {self.ff}) {{\n"
            f"  router softmax_top({self.top_k}, renorm = false) : f32\n"
            f"  experts routed[{self.experts}] = swiglu(d, ff) : {stored}\n"
            f"{beside}  tokens dropless\n"
            f"{last}{approx}}}\n"
        )

    @property
    def large(self) -> bool:
        """Whether float64 takes long on it."""
        return self.tokens > 10000

    def flops(self, tokens: int) -> int:
        """Of the routed experts; the router adds less than one percent."""
        return 2 * 3 * tokens * self.top_k * self.d * self.ff

    def expert_bytes(self, experts: int) -> int:
        """Bytes of the weights of so many experts, as a device has them: codes packed, and with their scales.

        Of a layer whose experts are all alike.
        """
        weights = 3 * experts * self.d * self.ff
        if self.codes is None:
            return 2 * weights
        columns = experts * (2 * self.ff + self.d)
        scales = 4 * columns if self.group is None else 2 * weights // self.group
        return weights * FORMATS[self.codes].bits // 8 + scales


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
    Shape("E128Int4", 128, 2048, 768, 8, 32768, codes="int4", group=32),
    Shape("E128Ternary", 128, 2048, 768, 8, 32768, codes="ternary"),
    Shape("E128Int8Rows", 128, 2048, 768, 8, 32768, codes="int8", rounded=True),
    Shape("E128Int4Rows", 128, 2048, 768, 8, 32768, codes="int4", group=32, rounded=True),
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
        Shape("Packed4", 6, 288, 160, 2, 260, codes="int4", group=32),
        Shape("Packed2", 6, 272, 144, 2, 260, codes="ternary"),
        Shape("Packed2Half", 5, 256, 128, 3, 70, dtype="f16", codes="ternary", group=64),
        Shape("Quantised4", 6, 288, 160, 2, 260, codes="int4", group=32, given=False),
        Shape("SomeQuantised", 6, 288, 160, 2, 260, codes="int4", group=32, given=False, some=2),
        Shape("Rounded8", 6, 272, 144, 2, 260, codes="int8", rounded=True),
        Shape("Rounded4", 6, 256, 128, 2, 260, codes="int4", group=128, rounded=True),
        Shape("Rounded2", 6, 272, 144, 2, 260, codes="ternary", rounded=True),
        Shape("Rounded4Half", 5, 288, 160, 2, 260, dtype="f16", codes="int4", group=32, rounded=True),
        Shape("Shared", 6, 272, 144, 2, 260, shared=(400, 96)),
        Shape("SharedFloats", 6, 288, 160, 2, 260, codes="int4", group=32, shared=(160,)),
        *SHAPES.values(),
        *CODED,
    )
}
"""What results are checked on."""

DECODE = (1, 2, 4, 8, 16, 32, 64)
"""Tokens of small batches."""
