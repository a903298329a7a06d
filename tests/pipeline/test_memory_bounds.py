"""What the checker believes of a layer's memory is true of the weights that the backend packs."""

from __future__ import annotations

import pytest

from moec import frontend, passes
from moec.backends.cpu import isa
from moec.backends.cpu import layer as backend_layer
from moec.diagnostics import Source
from moec.dialect import context
from moec.frontend import load_layer_text
from moec.frontend.layouts.measures import bounds_of
from moec.frontend.model import Layer


def layer(sizes: str, router: str, experts: str, more: str = "") -> Layer:
    text = f"""edition 1
layer L({sizes}) {{
  router {router}
  experts routed[5] = {experts}
  tokens dropless
  {more}
}}"""
    return load_layer_text(Source("layer.moe", text))


def packed_bytes(of: Layer) -> list[int]:
    module = frontend.lower(of, context())
    with module.context:
        passes.run(module, passes.parse_pipeline(passes.DEFAULT_PIPELINE))
        _copy, (itself, *_) = backend_layer.prepare(module)
        return [backend_layer.plan(itself, variant).frame.packed_bytes for variant in isa.host_variants()]


@pytest.mark.parametrize(
    "of",
    [
        layer("d = 1, ff = 1", "softmax_top(1)", "swiglu(d, ff)"),
        layer("d = 3, ff = 65", "softmax_top(2) : bf16", "swiglu(d, ff) : bf16"),
        layer("d = 129, ff = 2", "hash(7, 1)", "mlp_relu(d, ff) : bf16", "shared common[2] = swiglu(d, ff) : bf16"),
        layer("d = 64, ff = 32", "softmax_top(2)", "swiglu(d, ff) : int8(per = channel, x = bf16)"),
        layer(
            "d = 64, ff = 32", "softmax_top(2)", "swiglu(d, ff)", "quantize experts(routed, 1..2) as int4(group = 32)"
        ),
    ],
    ids=["ones", "narrow", "hash", "int8", "some_int4"],
)
def test_bounds_hold_for_every_instruction_set(of: Layer) -> None:
    bounds = bounds_of(of, None, None, copies=0)["memory"]
    for found in packed_bytes(of):
        assert bounds.low <= found <= bounds.high


def test_copies_and_paging_widen_the_bounds() -> None:
    of = layer("d = 64, ff = 32", "softmax_top(2)", "swiglu(d, ff)")
    alone, four, paged = (bounds_of(of, None, None, *more)["memory"] for more in ((0,), (4,), (0, True)))
    assert 0 < alone.low == four.low
    assert four.high == 5 * alone.high
    assert paged.low == 0
    assert "4 variants may have copies" in four.why
    assert "variants" not in alone.why
