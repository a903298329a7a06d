"""Steps of training on CUDA tensors, every kernel on the simulator, beside the same steps on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import moec
from moec.runtime.cuda import operator
from moec.runtime.dtypes import TORCH_DTYPES
from moec.runtime.module import Layer
from tests.backends.cuda.host.driver import compiled
from tests.backends.cuda.host.tensors import cuda

FILE = """edition 1
layer Trained(d = 40, ff = 24) {
  router softmax_top(2) : f32
  experts routed[3] = swiglu(d, ff) : DTYPE
  shared common[1] = swiglu(d, ff) : DTYPE
  tokens dropless
}
"""


@pytest.fixture(scope="module", params=["bf16", pytest.param("f16", marks=pytest.mark.slow)])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = FILE.replace("DTYPE", request.param)
    return compiled(text, "cuda:sm_90a", tmp_path_factory.mktemp("trained"), training=True)


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """As close as sums of 16-bit numbers in different orders are."""
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    if not ours.is_floating_point():
        assert torch.equal(ours, theirs)
    elif theirs.numel():
        error = (ours.double() - theirs.double()).norm() / theirs.double().norm().clamp_min(1e-9)
        assert float(error) < (3e-3 if ours.dtype is torch.float16 else 2e-2)


@pytest.mark.parametrize("count", [0, 1, 70])
def test_a_step_gives_what_it_gives_on_the_cpu(path: Path, count: int) -> None:
    layer: Layer = moec.load(path, training=True).reset_parameters(3)
    assert layer.manifest.cuda is not None
    assert layer.manifest.cuda.training
    # what is one stack of weights for the layer itself is read in parts by what trains it
    assert {len(stack.parameters) for stack in layer.manifest.cuda.stacks} == {1, 2}
    dtype = TORCH_DTYPES[layer.manifest.inputs[0].dtype]
    x, seed = torch.randn(count, 40).to(dtype), torch.randn(count, 40).to(dtype)
    weights = [parameter.detach() for parameter in layer.parameters()]
    names = [name for name, _ in layer.named_parameters()]
    assert names == [weight.name for weight in layer.manifest.parameters]
    theirs = torch.ops.moec.forward([x], weights, layer.sha256, "")
    saved = theirs[1:]
    expected = torch.ops.moec.backward([x], weights, saved, [seed], layer.sha256, "")
    with cuda(90) as fake:
        layer.to("cuda:0")
        there = [parameter.detach() for parameter in layer.parameters()]
        ours = operator.forward([x.to("cuda:0")], there, layer.sha256, "")
        for one, other in zip(ours, theirs, strict=True):
            close(one.cpu(), other)
        gradients = operator.backward(
            [x.to("cuda:0")], there, [one.to("cuda:0") for one in saved], [seed.to("cuda:0")], layer.sha256, ""
        )
        for one, other in zip(gradients, expected, strict=True):
            close(one.cpu(), other)
        assert any(line.startswith("backward_") for line in fake.record) or not count
