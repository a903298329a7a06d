"""Layers with quantised experts, from the file to CUDA tensors: as on the CPU, and against the float64 oracle."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import moec
from bench.cuda.steps.run import Kernels
from moec import oracle
from moec.artifact.container import GRAPH_IR, read
from moec.cli.app import app
from moec.dialect import context
from moec.errors import DtypeError, RangeError, ShapeError, WeightsError
from moec.pipeline import ir_text
from moec.runtime.module import Layer
from moec.runtime.placeholder import PackedParameter
from tests.backends.cuda.host.driver import compiled
from tests.backends.cuda.host.tensors import CudaTensor, cuda

pytestmark = pytest.mark.long

FILE = """edition 1
layer Quantised(d = 80, ff = 48) {{
  router softmax_top(2, renorm = false) : f32
  experts routed[5] = swiglu(d, ff) : int8(per = channel{0})
  shared common[1] = swiglu(d, ff) : int8(per = channel{0})
}}
"""
SMALL = """edition 1
layer Small(d = 96, ff = 64) {
  router softmax_top(2, renorm = false) : f32
  experts routed[5] = swiglu(d, ff) : int4(group = 32, prequantized = true)
  shared common[1] = swiglu(d, ff) : ternary(per = channel, scale = bf16, prequantized = true)
}
"""
MIXED = """edition 1
expert weighed(d, ff) {
  s = linear(x, 1, bias = true) : bf16
  up = linear(x, ff, bias = true)
  y = sigmoid(s) * linear(gelu(up), d, bias = true)
}
layer Mixed(d = 96, ff = 64) {
  router softmax_top(2) : f32
  experts routed[6] = weighed(d, ff) : bf16
  shared common = mlp_gelu(d, ff, bias = true) : bf16
  quantize experts(routed, 1..2, 5) as int4(group = 32)
  quantize experts(routed, 0) as ternary
}
"""
ROUNDED = """edition 1
layer Rounded(d = 96, ff = 64) {
  router softmax_top(2) : f32
  experts routed[5] = mlp_gelu(d, ff, bias = true) : int4(group = 32, x = f16)
  shared common[1] = mlp_gelu(d, ff, bias = true) : int8(per = channel, x = f16)
  approx rows as int8
}
"""
TARGET = "cuda:sm_80,sm_90a"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layer quantises the weights that it is given."""
    return compiled(FILE.format(""), TARGET, tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layer is given codes and scales, these in bf16."""
    return compiled(FILE.format(", scale = bf16, prequantized = true"), TARGET, tmp_path_factory.mktemp("given"))


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layer is given codes of floats, and rows in f16."""
    text = FILE.format(", x = f16, prequantized = true").replace("int8", "fp8_e4m3")
    return compiled(text, "cuda:sm_80", tmp_path_factory.mktemp("floats"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layer is given small codes, some with scales of groups."""
    return compiled(SMALL, "cuda:sm_90a", tmp_path_factory.mktemp("small"))


def values(path: Path, seed: int = 3) -> dict[str, torch.Tensor]:
    return moec.load(path, keep_weights=True).reset_parameters(seed).state_dict()


def expected(path: Path, weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    graph = ir_text.parse(read(path).texts[GRAPH_IR], "graph", context())
    arguments = {name: value.double().numpy() for name, value in weights.items()}
    return torch.from_numpy(oracle.run(graph, {"x": x.double().numpy(), **arguments})["y"])


def check(layer: Layer, x: torch.Tensor, want: torch.Tensor) -> None:
    y = layer(x.to("cuda:0")).cpu()
    assert y.shape == x.shape
    assert not y.isnan().any()
    assert ((y.double() - want).norm(dim=1) / want.norm(dim=1).clamp_min(1e-9) < 2e-2).all()


@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.slow), 90])
@pytest.mark.parametrize("form", ["path", "given"])
def test_layers_agree_with_the_oracle(form: str, capability: int, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(form)
    weights = values(path)
    with cuda(capability) as fake:
        layer = moec.load(path).to("cuda:0")
        assert layer.load_state_dict(weights).missing_keys == []
        for count in (0, 1, 3, 300):
            x = torch.randn(count, 80).bfloat16()
            check(layer, x, expected(path, weights, x))
        assert any("int8_few" in line for line in fake.record)
        assert any("_product_int8 " in line for line in fake.record)


def test_codes_take_a_byte_a_weight(path: Path) -> None:
    with cuda(90):
        layer = moec.load(path).to("cuda:0").reset_parameters(1)
        routed = layer.get_parameter("routed.gate.weight")
        assert isinstance(routed, PackedParameter)
        weights = layer._store.coded.filled(layer._tensors())
        assert [str(one.dtype) for one in weights].count("torch.int8") == 6
        assert {one.element_size() for one in weights if one.ndim == 3} == {1}


def test_codes_are_those_of_quantize(path: Path) -> None:
    weights = values(path)
    with cuda(90):
        layer = moec.load(path, keep_weights=True)
        layer.load_state_dict(weights)
        layer.to("cuda:0")  # quantised as it moves
        found = layer._store.coded.filled(layer._tensors())
        names = [one.name for one in layer.manifest.parameters]
        for place, name in enumerate(n for n in names if n != "router.logits.weight"):
            codes, scales = moec.quantize(weights[name], "int8")
            assert torch.equal(found[names.index(name)].cpu(), codes)
            assert torch.equal(found[len(names) + place].cpu(), scales)
        x = torch.randn(5, 80).bfloat16()
        check(layer, x, expected(path, weights, x))
        check(copy.deepcopy(layer), x, expected(path, weights, x))


def test_weights_that_were_given_are_not_kept(path: Path) -> None:
    weights = values(path)
    layer = moec.load(path)
    layer.load_state_dict(weights)
    with cuda(90, 90):
        with pytest.raises(WeightsError, match="give them once the layer is on the device"):
            layer.to("cuda:0")
        layer = moec.load(path).to("cuda:0")
        with pytest.raises(WeightsError, match=r"no values yet for"):
            layer(torch.randn(1, 80).bfloat16().to("cuda:0"))
        layer.load_state_dict(weights)
        with pytest.raises(WeightsError, match="was quantised while it was packed"):
            layer.state_dict()
        with pytest.raises(WeightsError, match="was quantised while it was packed"):
            layer.cpu()
        x = torch.randn(4, 80).bfloat16()
        y = layer(x.to("cuda:0")).cpu()
        assert torch.equal(layer.to("cuda:1")(x.to("cuda:1")).cpu(), y)


def test_what_is_given_is_checked(path: Path) -> None:
    with cuda(90):
        layer = moec.load(path).to("cuda:0").reset_parameters(1)
        with pytest.raises(ShapeError):
            layer.routed.gate.weight = torch.zeros(5, 80, 48, dtype=torch.bfloat16)
        with pytest.raises(DtypeError):
            layer.routed.gate.weight = torch.zeros(5, 48, 80)
        x = torch.randn(2, 80).bfloat16().to("cuda:0")
        other = {"routed.gate.weight": torch.zeros(5, 48, 80, dtype=torch.bfloat16).to("cuda:0")}
        with pytest.raises(WeightsError, match="another tensor cannot stand in for it"):
            torch.func.functional_call(layer, other, (x,))


def test_codes_and_scales_come_back(given: Path) -> None:
    weights = values(given)
    layer = moec.load(given)
    layer.load_state_dict(weights)
    with cuda(90):
        returned = layer.to("cuda:0").state_dict()
        assert returned["routed.gate.weight"].dtype == torch.int8
        assert all(torch.equal(returned[name].cpu(), value) for name, value in weights.items())
        layer.cpu()
    x = torch.randn(6, 80).bfloat16()
    want = expected(given, weights, x)
    assert float((layer(x).double() - want).norm() / want.norm()) < 2e-2


def test_floats_of_eight_bits_are_given_and_come_back(floats: Path) -> None:
    weights = values(floats)
    assert weights["routed.up.weight"].dtype is torch.float8_e4m3fn
    with cuda(80) as fake:
        layer = moec.load(floats).to("cuda:0")
        layer.load_state_dict(weights)
        for count in (0, 2, 300):
            x = torch.randn(count, 80).half()
            check(layer, x, expected(floats, weights, x))
        assert {name for line in fake.record for name in ("fp8_e4m3_few", "_fp8_e4m3 ") if name in line} == {
            "fp8_e4m3_few",
            "_fp8_e4m3 ",
        }
        for name, tensor in layer.state_dict().items():
            assert torch.equal(tensor.cpu().view(torch.uint8), weights[name].view(torch.uint8)), name


def test_products_are_checked_by_themselves(given: Path) -> None:
    with cuda(90):
        layer = moec.load(given).to("cuda:0").reset_parameters(1)
        kernels = Kernels(given, layer, lambda tensor: tensor.inner if isinstance(tensor, CudaTensor) else tensor)
        findings = kernels.run(torch.randn(33, 80).bfloat16().to("cuda:0"))
        products = [one for one in findings if "int8_few" in one.kernel]
        assert len(products) == 2
        assert [one for one in products if one.wrong] == []


def test_small_codes_are_packed_and_have_scales_of_groups(small: Path) -> None:
    weights = values(small)
    with cuda(90):
        layer = moec.load(small).to("cuda:0")
        layer.load_state_dict(weights)
        kept = layer._store.coded.filled(layer._tensors())
        sizes = {one.name: tensor.nbytes for one, tensor in zip(layer.manifest.parameters, kept, strict=False)}
        assert sizes["routed.gate.weight"] == 5 * 64 * 128 // 2
        assert sizes["common.down.weight"] == 96 * 64 // 4
        kernels = Kernels(small, layer, lambda tensor: tensor.inner if isinstance(tensor, CudaTensor) else tensor)
        for count in (0, 1, 5, 330):
            x = torch.randn(count, 96).bfloat16()
            check(layer, x, expected(small, weights, x))
            findings = kernels.run(x.to("cuda:0"))
            assert [one for one in findings if one.wrong] == []
            assert {"int4", "ternary"} <= {part for one in findings for part in one.kernel.split("_")} or not count
        assert any(one.kernel.endswith(("_int4", "_int4_2")) for one in findings)  # for many rows: by wgmma


def test_packed_codes_are_given_and_come_back_as_they_are(small: Path) -> None:
    weights = values(small)
    layer = moec.load(small)
    layer.load_state_dict(weights)
    with cuda(90, 90):
        assert same(layer.to("cuda:0"), weights)  # packed on the CPU already
        assert isinstance(layer.get_parameter("routed.gate.scale"), PackedParameter)
        assert not isinstance(layer.get_parameter("common.gate.scale"), PackedParameter)  # of channels: as it is
        assert same(copy.deepcopy(layer), weights)
        other = values(small, 4)
        assert layer.load_state_dict(other).missing_keys == []
        assert same(layer.to("cuda:1"), other)
        assert same(layer.cpu(), other)
        with layer.unpacked():
            assert same(layer.to("cuda:0"), other)  # packed from ordinary tensors
        x = torch.randn(4, 96).bfloat16()
        check(layer, x, expected(small, other, x))
        empty = moec.load(small).to("cuda:0")
        with pytest.raises(WeightsError, match=r"no values yet for .*routed\.gate\.weight"):
            empty(x.to("cuda:0"))


def same(layer: Layer, weights: dict[str, torch.Tensor]) -> bool:
    found = layer.state_dict()
    return found.keys() == weights.keys() and all(torch.equal(found[name].cpu(), one) for name, one in weights.items())


def test_packed_codes_are_edited_where_that_is_seen(small: Path) -> None:
    weights = values(small)
    x = torch.randn(3, 96).bfloat16()
    with cuda(90):
        layer = moec.load(small).to("cuda:0")
        layer.load_state_dict(weights)
        for name in ("routed.gate.weight", "routed.up.scale"):
            with torch.no_grad(), pytest.raises(WeightsError, match="packed for the kernels"):
                layer.get_parameter(name).copy_(weights[name])
        with pytest.raises(RangeError, match="codes from -9 to"):
            layer.routed.gate.weight = weights["routed.gate.weight"] * 0 - 9
        given = {"routed.gate.weight": weights["routed.gate.weight"].to("cuda:0")}
        with pytest.raises(WeightsError, match="is packed when it is given"):
            torch.func.functional_call(layer, given, (x.to("cuda:0"),))
        with layer.unpacked(), torch.no_grad():
            layer.get_parameter("routed.gate.weight").select(0, 2).fill_(7)
            layer.routed.up.weight = torch.zeros(5, 64, 96, dtype=torch.int8).to("cuda:0") - 8
            with pytest.raises(WeightsError, match="call the layer after"):
                layer(x.to("cuda:0"))
        weights["routed.gate.weight"][2] = 7
        weights["routed.up.weight"].fill_(-8)
        assert same(layer, weights)
        check(layer, x, expected(small, weights, x))


@pytest.mark.parametrize("arch", ["sm_80", pytest.param("sm_90a", marks=pytest.mark.slow)])
def test_some_experts_are_quantised(arch: str, tmp_path: Path) -> None:
    path = compiled(MIXED, f"cuda:{arch}", tmp_path)
    weights = values(path)
    capability = 80 if arch == "sm_80" else 90
    with cuda(capability, capability) as fake:
        layer = moec.load(path).to("cuda:0")
        layer.load_state_dict(weights)
        names = [one.name for one in layer.manifest.parameters]
        kept = dict(zip(names, layer._store.coded.filled(layer._tensors()), strict=False))
        assert torch.equal(kept["routed.up.weight"].cpu(), weights["routed.up.weight"][3:5])
        assert torch.equal(kept["routed.s.weight"].cpu(), weights["routed.s.weight"])
        assert weights["routed.up.bias"].any(1).all()
        assert layer.get_parameter("routed.up.bias").shape == (6, 64)  # whole: kernels find their experts in it
        kernels = Kernels(path, layer, lambda tensor: tensor.inner if isinstance(tensor, CudaTensor) else tensor)
        x = torch.randn(40, 96).bfloat16()
        findings = kernels.run(x.to("cuda:0"))
        assert [one for one in findings if one.wrong] == []
        assert {"int4", "ternary"} <= {part for one in findings for part in one.kernel.split("_")}
        want = expected(path, weights, x)
        check(layer, x, want)
        before = len(fake.record)
        with fake.capturing():
            check(layer, x, want)
        launched = [line.partition(" ")[0] for line in fake.record[before:]]
        assert len([name for name in launched if "_bf16_int4_ternary_" in name]) == 2
        assert len(launched) == 5
        y = copy.deepcopy(layer)(x.to("cuda:0")).cpu()
        assert torch.equal(layer.to("cuda:1")(x.to("cuda:1")).cpu(), y)
        with pytest.raises(WeightsError, match="was quantised while it was packed"):
            layer.state_dict()


@pytest.mark.parametrize("arch", [pytest.param("sm_80", marks=pytest.mark.slow), "sm_90a"])
def test_rows_are_rounded_to_int8(arch: str, tmp_path: Path) -> None:
    path = compiled(ROUNDED, f"cuda:{arch}", tmp_path)
    weights = values(path)
    with cuda(80 if arch == "sm_80" else 90):
        layer = moec.load(path).to("cuda:0")
        layer.load_state_dict(weights)
        kernels = Kernels(path, layer, lambda tensor: tensor.inner if isinstance(tensor, CudaTensor) else tensor)
        for count in (0, 1, 90):
            x = torch.randn(count, 96).half()
            x[1:2] = 0
            findings = kernels.run(x.to("cuda:0"))
            assert [one for one in findings if one.wrong] == []
            assert (
                sum("quantise_rows" in one.kernel for one in findings) == 3 * 2
            )  # codes and scales of x and of two hidden rows
            check(layer, x, expected(path, weights, x))
        x[7, 5], x[9, 9] = float("nan"), float("inf")
        spoilt = layer(x.to("cuda:0")).cpu().isnan().any(1)
        assert spoilt.nonzero()[:, 0].tolist() == [7, 9]


OWN = """edition 1
expert gated(d, ff) {
  gate = linear(x, ff) : bf16
  scale = linear(x, ff, bias = true) : bf16
  up = linear(x, ff, bias = true)
  y = linear(silu(gate) * up * scale, d)
}
layer Own(d = 96, ff = 64) {
  router softmax_top(2) : f32
  experts routed[6] = gated(d, ff) : bf16
  quantize experts(routed, 1..2, 5) as int4(group = 32)
  approx rows as int8
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_linears_that_stay_floats_beside_codes_and_rounded_rows(arch: str, tmp_path: Path) -> None:
    path = compiled(OWN, f"cuda:{arch}", tmp_path)
    weights = values(path)
    with cuda(80 if arch == "sm_80" else 90):
        layer = moec.load(path).to("cuda:0")
        layer.load_state_dict(weights)
        kernels = Kernels(path, layer, lambda tensor: tensor.inner if isinstance(tensor, CudaTensor) else tensor)
        for count in (0, 1, 20, 150):
            x = torch.randn(count, 96).bfloat16()
            assert [one for one in kernels.run(x.to("cuda:0")) if one.wrong] == []
            check(layer, x, expected(path, weights, x))


def test_inspect_says_which_products_there_are(path: Path) -> None:
    shown = " ".join(CliRunner().invoke(app, ["inspect", str(path)], env={"COLUMNS": "200"}).output.split())
    assert "quantised experts on CUDA devices multiply by" in shown
    assert "mma.sync, on sm_90a by wgmma for many rows" in shown
