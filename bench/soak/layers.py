"""The layers that are soaked, what their layouts allow, and how the traffic of each drifts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.drift.traffic import Phase

_SOURCE = """edition 1
layer Soaked(d = {d}, ff = {ff}, E = {experts}, dtype = bf16) {{
  router softmax_top({top_k}) : f32
  experts routed[E] = swiglu(d, ff) : dtype
}}
layout Serve for Soaked {{
  {allowed}
  recompile when {when}, max {most} variants
}}
"""


@dataclass(frozen=True)
class Soaked:
    """A layer in bf16 with a policy, and its traffic.

    allowed        what variants may be, as a layout says it
    when           condition, window and gain of its `recompile` statement
    most           variants at a time
    phases         exponent of Zipf's law, the share of the experts by which the hottest moves on, and how often a call
                   has so many tokens
    largest_error  of a call's results beside those of the layer as it was compiled ahead, relative, root of the mean
                   square; 0: the same bits
    """

    d: int
    ff: int
    experts: int
    top_k: int
    allowed: str
    when: str
    phases: Sequence[tuple[float, float, tuple[tuple[int, float], ...]]]
    most: int = 2
    largest_error: float = 0.0

    @property
    def source(self) -> str:
        return _SOURCE.format(**vars(self))

    def drift(self) -> Sequence[Phase]:
        return [Phase(exponent, int(moved * self.experts), sizes) for exponent, moved, sizes in self.phases]


_ALL = tuple((tokens, tokens**-0.75) for tokens in (1, 16, 256, 2048))  # large calls are rarer, but take more time

FORCED = Soaked(
    512,
    256,
    32,
    4,
    allowed="specialise tokens(1..8, 9..16, 17..512, 513..4096)",
    when="tokens >= 1 for 10 calls, gain 1.0",
    phases=((0.0, 0.0, _ALL), (1.2, 0.0, _ALL), (0.8, 0.5, _ALL[:2]), (1.6, 0.34, _ALL[2:])),
)
"""Small enough for wide panels, which need a second packed form of the weights."""

SERVICE = {
    "ranges": Soaked(
        256,
        256,
        16,
        2,
        allowed="specialise tokens(1..2, 3..4, 5..8, 9..4096)",
        when="tokens >= 1 for 200 calls, gain 1.02",
        phases=(
            (0.0, 0.0, ((4, 0.8), (1, 0.2), (256, 0.01), (2048, 0.002))),
            (0.3, 0.25, ((8, 0.9), (1, 0.1), (256, 0.02), (2048, 0.004))),
            (1.6, 0.5, ((256, 0.8), (2048, 0.1), (1, 0.1))),
            (0.1, 0.75, ((2, 0.8), (8, 0.1), (256, 0.02), (2048, 0.004))),
        ),
    ),
    "cold": Soaked(
        1024,
        512,
        32,
        4,
        allowed="approx quantize coldest(routed, 24) as int4(group = 32)",
        when="imbalance > 1.5 for 100 calls, gain 1.05",
        phases=tuple((1.0, 0.25 * step, ((1, 0.7), (16, 0.28), (256, 0.02))) for step in range(4)),
        largest_error=0.25,
    ),
}
"""Layers whose variants gain something: wide panels for one row an expert and fewer (the same bits), where two of three
ranges of tokens may have a variant, but not on AVX2; and codes for the experts that are chosen least (other bits), of
which fewer bytes are read."""
