"""Layers of `.moe` files, from the file to CUDA tensors: every kernel on the simulator, against the float64 oracle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import moec
from moec import oracle
from moec.artifact.container import GRAPH_IR, read
from moec.dialect import context
from moec.errors import LayoutError
from moec.pipeline import ir_text
from moec.runtime.dtypes import TORCH_DTYPES
from moec.runtime.module import Layer
from tests.backends.cuda.host.driver import compiled
from tests.backends.cuda.host.tensors import cuda

pytestmark = pytest.mark.long

ROUTED = """edition 1
layer Routed(d = 72, ff = 40) {
  router softmax_top(2) : f32
  experts routed[5] = swiglu(d, ff) : bf16
  tokens dropless
}
"""
SHARED = """edition 1
layer Shared(d = 64, ff = 32) {
  router softmax_top(2, renorm = false) : f32
  experts routed[4] = swiglu(d, ff) : bf16
  shared common[2] = swiglu(d, ff) : bf16
  tokens dropless
}
"""
HALF = """edition 1
router deep(k) {                            # a bias between two linears
  logits = linear(tanh(linear(x, 8, bias = true)), count)
  p      = softmax(logits)
  pick   = top_k(p, k)
  weight = p
}
layer Half(d = 72, ff = 40) {
  router deep(2) : f32
  experts routed[5] = swiglu(d, ff) : f16
  shared common = mlp_gelu(d, ff) : f16
  tokens dropless
}
"""
FILES = {"Routed": ROUTED, "Shared": SHARED, "Half": HALF}
TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 3e-3}
CAPABILITIES = {"sm_80": 80, "sm_90a": 90}


@pytest.fixture(scope="module", params=FILES)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = f"cuda:{','.join(CAPABILITIES)}"
    return compiled(FILES[request.param], target, tmp_path_factory.mktemp(request.param))


class Case:
    """A layer on a device, and what it should compute."""

    def __init__(self, path: Path) -> None:
        self.layer: Layer = moec.load(path).reset_parameters(int(torch.randint(1000, ())))
        self.graph = ir_text.parse(read(path).texts[GRAPH_IR], "graph", context())
        self.values = {name: value.double().numpy() for name, value in self.layer.state_dict().items()}
        self.layer.to("cuda:0")

    def check(self, x: torch.Tensor) -> torch.Tensor:
        """The result for tokens x, after comparing it with the oracle's."""
        y = self.layer(x.to("cuda:0")).cpu()
        expected = torch.from_numpy(oracle.run(self.graph, {"x": x.double().numpy(), **self.values})["y"])
        assert y.shape == x.shape
        assert not y.isnan().any()
        error = (y.double() - expected).norm(dim=1) / expected.norm(dim=1).clamp_min(1e-9)
        assert (error < TOLERANCE[x.dtype]).all()
        return y


@pytest.fixture(params=CAPABILITIES)
def case(request: pytest.FixtureRequest, path: Path) -> Iterator[Case]:
    with cuda(CAPABILITIES[request.param]):
        made = Case(path)
        assert repr(made.layer).split(", ")[1] == request.param
        yield made


def tokens(layer: Layer, count: int) -> torch.Tensor:
    x = layer.manifest.inputs[0]
    return torch.randn(count, *x.row).to(TORCH_DTYPES[x.dtype])


@pytest.mark.parametrize("count", [0, 1, 3, 40, 150])
def test_layers_agree_with_the_oracle(case: Case, count: int) -> None:
    x = tokens(case.layer, count)
    y = case.check(x)
    assert torch.equal(case.layer(x.to("cuda:0")).cpu(), y)


def test_one_expert_gets_all(case: Case) -> None:
    router = case.layer.get_parameter("router.logits.weight")
    weight = torch.zeros(router.shape)
    weight[:, 0] = torch.tensor([3.0, 2.0, *(-9.0 for _ in range(len(weight) - 2))])
    case.layer.load_state_dict({**case.layer.state_dict(), "router.logits.weight": weight})
    case.values["router.logits.weight"] = weight.double().numpy()
    x = tokens(case.layer, 70)
    x[:, 0] = 4.0
    case.check(x)


def test_what_overflows_stays_with_its_token(case: Case) -> None:
    if case.layer.manifest.inputs[0].dtype != "f16":
        pytest.skip("only f16 ends at 65504")
    x = tokens(case.layer, 60)
    y = case.layer(x.to("cuda:0")).cpu()
    x[7] = 60000.0 * x[7].sign()
    x[9, 2] = float("nan")
    x[50] = 2**-24
    found = case.layer(x.to("cuda:0")).cpu()
    rest = [n for n in range(60) if n not in (7, 9, 50)]
    assert not found[7].isfinite().all()
    assert found[9].isnan().all()
    assert found[50].isfinite().all()
    assert torch.equal(found[rest], y[rest])


def test_stacked_weights_lie_behind_each_other(case: Case) -> None:
    stacks = case.layer.manifest.cuda.stacks
    named = dict(case.layer.named_parameters())
    for stack in stacks:
        parts = [named[case.layer.manifest.parameters[n].name] for n in stack.parameters]
        ends = [part.data_ptr() + part.nbytes for part in parts]
        assert [part.data_ptr() for part in parts[1:]] == ends[:-1]
    if case.layer.manifest.layer == "Shared":
        assert sorted(len(stack.parameters) for stack in stacks) == [1, 2, 2, 2]
        moved = {name: tensor.clone() for name, tensor in named.items()}
        x = tokens(case.layer, 4).to("cuda:0")
        with pytest.raises(LayoutError, match=r"have to lie behind each other in one piece of memory"):
            torch.func.functional_call(case.layer, moved, (x,))
