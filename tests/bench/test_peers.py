"""Routes through other people's libraries, each of which may be missing here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.formats import FORMATS
from bench.layer import TORCH_DTYPE, Layer, relative_error
from bench.routes import ROUTES, Unavailable
from bench.shapes import SHAPES, Shape

# Inner dimensions of 256, because ggml keeps so many weights together.
PLAIN = replace(SHAPES["olmoe"], name="small", d=512, ff=256, experts=8, top_k=3)
SHARED = replace(PLAIN, shared=1, renormalise=True)
TOLERANCE = {"f32": 2e-5, "bf16": 2e-2, "int8": 5e-2, "int4": 0.25}
PEERS = ("zentorch", "vllm", "sglang", "ggml", "ggml_repacked", "ggml_q4_0", "hf_eager", "hf_grouped_mm")
PAIRS = [(name, format) for name in PEERS for format in ROUTES[name].formats if format in TOLERANCE]


@pytest.mark.parametrize("shape", [PLAIN, SHARED], ids=["plain", "shared"])
@pytest.mark.parametrize(("name", "format"), PAIRS)
def test_a_peer_computes_the_layer_or_says_why_not(name: str, format: str, shape: Shape) -> None:
    if name.startswith("hf_") and shape.shared:
        pytest.skip("the block of this family has no shared experts")
    layer = Layer(shape, seed=2)
    try:
        run = ROUTES[name].build(layer, format)
    except Unavailable as why:
        pytest.skip(str(why))
    for tokens in (1, 40):
        (x,) = layer.inputs(tokens, 1, "uniform")
        for _ in range(2):  # the first call may pack weights
            y = run(x.to(TORCH_DTYPE[FORMATS[format].x]))
        assert relative_error(y, layer.reference(x)) < TOLERANCE[format]


def test_a_folder_without_ggml_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGML_DIR", str(tmp_path))
    from bench.ggml.library import library

    library.cache_clear()
    with pytest.raises(Unavailable, match=r"build\.sh"):
        ROUTES["ggml"].build(Layer(PLAIN), "bf16")
    library.cache_clear()


def test_sizes_that_ggml_cannot_quantise_are_said_so() -> None:
    with pytest.raises(Unavailable, match="multiples of 256"):
        ROUTES["ggml"].build(Layer(replace(PLAIN, ff=96)), "int4")


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_sizes_that_kernels_do_not_tile_are_said_so(name: str) -> None:
    with pytest.raises(Unavailable, match="multiples of 32"):
        ROUTES[name].build(Layer(replace(PLAIN, ff=40)), "bf16")
