"""Shared experts that are not like the routed ones, from the file to CUDA tensors: in the launches of routed ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import moec
from bench.cuda.steps.run import Kernels
from tests.backends.cuda.host.driver import compiled
from tests.backends.cuda.host.tensors import CudaTensor, cuda
from tests.backends.cuda.host.test_quantised import check, expected, values

pytestmark = pytest.mark.long

FILES = {
    "Floats": """edition 1
layer Floats(d = 64, ff = 32) {
  router softmax_top(2) : f32
  experts routed[4] = swiglu(d, ff) : bf16
  shared like[2] = mlp_gelu(d, 48, bias = true) : bf16
}
""",
    "Several": """edition 1
layer Several(d = 64, ff = 32) {
  router softmax_top(2) : f32
  experts routed[4] = swiglu(d, ff) : int4(group = 32)
  shared like[2] = mlp_gelu(d, 48, bias = true) : bf16
  shared gated = sigmoid(linear(x, 1)) * swiglu(d, 112) : bf16
  shared coded[2] = swiglu(d, 64) : int8(per = channel)
}
""",
    "Rounded": """edition 1
layer Rounded(d = 64, ff = 32) {
  router softmax_top(2) : f32
  experts routed[4] = swiglu(d, ff) : int8
  shared coded[2] = swiglu(d, 64) : int4(group = 32, prequantized = true)
  approx rows as int8
}
""",
}
LAUNCHES = {"Floats": 5, "Several": 5, "Rounded": 7}


@pytest.mark.parametrize(
    ("name", "arch"),
    [
        ("Floats", "sm_90a"),
        pytest.param("Several", "sm_90a", marks=pytest.mark.slow),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in [("Several", "sm_80"), ("Rounded", "sm_80"), ("Rounded", "sm_90a")]
        ),
    ],
)
def test_shared_experts_in_the_launches_of_routed_ones(name: str, arch: str, tmp_path: Path) -> None:
    path = compiled(FILES[name], f"cuda:{arch}", tmp_path)
    weights = values(path)
    with cuda(80 if arch == "sm_80" else 90) as fake:
        layer = moec.load(path).to("cuda:0")
        layer.load_state_dict(weights)
        kernels = Kernels(path, layer, lambda tensor: tensor.inner if isinstance(tensor, CudaTensor) else tensor)
        for count in (0, 20, 300):
            x = torch.randn(count, 64).bfloat16()
            findings = kernels.run(x.to("cuda:0"))
            assert [one for one in findings if one.wrong] == []
            before = len(fake.record)
            check(layer, x, expected(path, weights, x))
            if count == 20:
                assert len(fake.record[before:]) == LAUNCHES[name]
