"""A small layer."""

from __future__ import annotations

from moec.fixed.spec import Activation, Expert, Layer, Router, Score, Weights

gelu = Layer(
    name="Small",
    width=12,
    experts=6,
    router=Router(Score.SOFTMAX, "all", False, False, 2, True, 1.0, 1),
    routed=Expert(20, Activation.GELU, False, True),
    shared=0,
    common=None,
    weights=Weights.INT8,
)
