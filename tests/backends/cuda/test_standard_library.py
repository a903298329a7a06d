"""Layers with every router of the standard library, whole, on the simulator against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moec import frontend, passes
from moec.diagnostics import Source
from moec.dialect import context
from tests.backends.cuda.calls import DTYPES, Function, exact, together
from tests.oracle.test_standard_library import ROUTERS

TOKENS = 23
CASES = {case.call: case for case in ROUTERS}


def kernels(call: str) -> str:
    """The kernel-level module of a small layer with this router."""
    text = f"""edition 1
layer L(d = 16, ff = 24) {{
  router {call} : f32
  experts routed[8] = swiglu(d, ff) : bf16
  tokens dropless
}}
"""
    module = frontend.lower(frontend.load_layer_text(Source("layer.moe", text)), context())
    passes.run(module, passes.parse_pipeline(passes.DEFAULT_PIPELINE))
    return str(module)


def agree(call: str, layer: Function) -> None:
    random = torch.Generator().manual_seed(1)
    given = {}
    for tensor in (*layer.layer.inputs, *layer.layer.parameters):
        type_ = tensor.type
        shape = [TOKENS if type_.is_dynamic_dim(n) else type_.get_dim_size(n) for n in range(type_.rank)]
        if str(type_.element_type) == "i32":
            highest = CASES[call].highest[tensor.name]
            given[tensor.name] = torch.randint(highest, shape, generator=random, dtype=torch.int32)
        else:
            scale = 1.0 if tensor.name == "x" else shape[-1] ** -0.5
            given[tensor.name] = (scale * torch.randn(shape, generator=random)).to(DTYPES[str(type_.element_type)])
    want, out = layer.expected(given), layer(given, TOKENS)
    assert np.array_equal(exact(out["chosen"]), want["chosen"])
    assert np.abs(exact(out["y"]) - want["y"]).max() <= 0.01 * np.abs(want["y"]).max()


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_every_router(arch: str) -> None:
    for call, layer in together({call: kernels(call) for call in CASES}, arch).items():
        agree(call, layer)
