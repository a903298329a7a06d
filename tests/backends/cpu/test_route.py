"""Row programs against the oracle, in every variant."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_mlir import ir

from moec.backends.base import Unsupported
from moec.dialect import context
from moec.oracle.interpreter import run as oracle
from tests.backends.cpu import native, programs
from tests.backends.cpu.artifact import Artifact, exact

VARIANTS = range(len(native.runnable()))
TOKENS = 41


def expected(text: str, given: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    with context(), ir.Location.unknown():
        return oracle(ir.Module.parse(text), {name: exact(tensor) for name, tensor in given.items()})


def same(have: torch.Tensor, want: np.ndarray, tolerance: float = 0.0) -> None:
    np.testing.assert_allclose(exact(have), want, rtol=tolerance, atol=tolerance, equal_nan=True)


def agree(text: str, inputs: dict[str, torch.Tensor], weights: dict[str, torch.Tensor] | None = None) -> None:
    weights = weights or {}
    layer = Artifact(text)
    want = expected(text, {**inputs, **weights})
    for variant in VARIANTS:
        out = layer.run(inputs, weights, variant=variant)
        same(out["index"], want["index"])
        same(out["weight"], want["weight"], 2e-6)


@pytest.mark.parametrize(("count", "k"), [(1, 1), (3, 2), (4, 4), (16, 3), (17, 5), (64, 8), (100, 7)])
def test_softmax_and_top_k_of_any_width(count, k):
    torch.manual_seed(count)
    agree(programs.softmax_top(count, k), {"x": 3 * torch.randn(TOKENS, count)})


@pytest.mark.parametrize("count", [5, 16, 33])
def test_top_k_puts_nan_first_and_breaks_ties_by_position(count):
    rng = np.random.default_rng(count)
    x = rng.choice(np.float32([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3e38]), (200, count))
    x.view(np.uint32)[:, 0][np.isnan(x[:, 0])] = 0xFFC00000  # a NaN with its sign set
    agree(programs.plain_top(count, 5), {"x": torch.tensor(x)})


@pytest.mark.parametrize(("dtype", "width"), [("f32", 24), ("bf16", 24), ("f32", 7), ("bf16", 33), ("f32", 1)])
def test_a_product_inside_the_program(dtype, width):
    torch.manual_seed(width)
    x = torch.randn(TOKENS, width).to(torch.bfloat16 if dtype == "bf16" else torch.float32)
    agree(programs.linear_softmax(dtype, width, 6, 2), {"x": x}, {"w0": torch.randn(6, width)})


@pytest.mark.parametrize(("count", "many", "kept", "k"), [(32, 4, 2, 6), (15, 5, 3, 4), (64, 8, 4, 8)])
def test_groups(count, many, kept, k):
    torch.manual_seed(count)
    weights = {"bias": torch.randn(count)}
    agree(programs.groups(count, many, kept, k), {"x": torch.randn(TOKENS, count)}, weights)


@pytest.mark.parametrize("mass", [0.1, 0.6, 0.95, 1.0])
def test_top_p(mass):
    torch.manual_seed(1)
    agree(programs.top_p(11, mass, 6), {"x": 2 * torch.randn(TOKENS, 11)})


def test_a_table_of_ids():
    torch.manual_seed(2)
    table = torch.randint(0, 9, (50, 3), dtype=torch.int32)
    ids = torch.randint(0, 50, (TOKENS,), dtype=torch.int32)
    agree(programs.table(50, 3), {"x": torch.zeros(TOKENS, 4), "ids": ids}, {"table": table})


@pytest.mark.parametrize("wrong", [-1, 50, 2**31 - 1, -(2**31)])
def test_an_id_beyond_the_table_is_an_error(wrong):
    layer = Artifact(programs.table(50, 3))
    ids = torch.tensor([1, wrong, 3], dtype=torch.int32)
    table = torch.zeros(50, 3, dtype=torch.int32)
    for variant in VARIANTS:
        with pytest.raises(RuntimeError, match="an index lies outside the table"):
            layer.run({"x": torch.zeros(3, 4), "ids": ids}, {"table": table}, variant=variant)


def test_a_token_has_the_same_bits_in_any_batch_and_with_any_threads():
    torch.manual_seed(3)
    layer = Artifact(programs.softmax_top(60, 7))
    x = torch.randn(5000, 60)
    x[17] = float("nan")
    x[18, 3] = float("inf")
    for variant in VARIANTS:
        whole = layer.run({"x": x}, variant=variant, threads=1)
        shared = layer.run({"x": x}, variant=variant, threads=3)
        part = layer.run({"x": x[4000:4100].contiguous()}, variant=variant)
        for name in ("index", "weight"):
            bits = whole[name].view(torch.int32)
            assert torch.equal(bits, shared[name].view(torch.int32))
            assert torch.equal(bits[4000:4100], part[name].view(torch.int32))
        finite = [n for n in range(5000) if n not in (17, 18)]
        assert whole["weight"][finite].isfinite().all()


def test_rows_too_large_for_a_stack():
    torch.manual_seed(5)
    text = programs.softmax_top(5000, 9)
    x = torch.randn(7, 5000)
    layer, want = Artifact(text), expected(text, {"x": x})
    for variant in VARIANTS:
        out = layer.run({"x": x}, variant=variant, threads=3)
        same(out["index"], want["index"])
        same(out["weight"], want["weight"], 2e-6)


def test_no_tokens():
    out = Artifact(programs.softmax_top(60, 7)).run({"x": torch.empty(0, 60)})
    assert out["index"].shape == (0, 7)


def body(*lines: str) -> str:
    end = '"moe.yield_choice"(%pick, %w) : (tensor<2xi32>, tensor<2xf32>) -> ()'
    text = "\n      ".join([*lines, end])
    return programs.layer({"x": "tensor<?x6xf32>"}, {"m": "tensor<4x6xf32>"}, "x", "tensor<6xf32>", text, 2)


PICK = "%pick = arith.constant dense<[3, -1]> : tensor<2xi32>"

STRUCTURES = {
    "slice of the middle": (
        PICK,
        "%w = tensor.extract_slice %row[3] [2] [1] : tensor<6xf32> to tensor<2xf32>",
    ),
    "column of a matrix": (
        PICK,
        "%c = tensor.extract_slice %m[1, 2] [2, 1] [1, 1] : tensor<4x6xf32> to tensor<2xf32>",
        "%p = tensor.extract_slice %row[0] [2] [1] : tensor<6xf32> to tensor<2xf32>",
        "%w = arith.mulf %c, %p : tensor<2xf32>",
    ),
    "concatenated": (
        PICK,
        "%a = tensor.extract_slice %row[5] [1] [1] : tensor<6xf32> to tensor<1xf32>",
        "%b = tensor.extract_slice %row[0] [1] [1] : tensor<6xf32> to tensor<1xf32>",
        "%w = tensor.concat dim(0) %a, %b : (tensor<1xf32>, tensor<1xf32>) -> tensor<2xf32>",
    ),
    "sum over the first axis": (
        PICK,
        "%z = arith.constant dense<1.0> : tensor<6xf32>",
        "%s = linalg.reduce { arith.addf } ins(%m : tensor<4x6xf32>) outs(%z : tensor<6xf32>) dimensions = [0]",
        "%q = arith.addf %s, %row : tensor<6xf32>",
        "%w = tensor.extract_slice %q[4] [2] [1] : tensor<6xf32> to tensor<2xf32>",
    ),
    "maximum over both axes": (
        PICK,
        "%z = arith.constant dense<0xFF800000> : tensor<f32>",
        "%s = linalg.reduce { arith.maximumf } ins(%m : tensor<4x6xf32>) outs(%z : tensor<f32>) dimensions = [0, 1]",
        "%e = tensor.empty() : tensor<2xf32>",
        "%w = linalg.broadcast ins(%s : tensor<f32>) outs(%e : tensor<2xf32>) dimensions = [0]",
    ),
    "transposed": (
        PICK,
        "%e = tensor.empty() : tensor<6x4xf32>",
        "%t = linalg.transpose ins(%m : tensor<4x6xf32>) outs(%e : tensor<6x4xf32>) permutation = [1, 0]",
        "%v = tensor.extract_slice %t[2, 1] [1, 2] [1, 1] : tensor<6x4xf32> to tensor<2xf32>",
        "%p = tensor.extract_slice %row[0] [2] [1] : tensor<6xf32> to tensor<2xf32>",
        "%w = arith.subf %v, %p : tensor<2xf32>",
    ),
    "integers and conversions": (
        "%two = arith.constant dense<2> : tensor<6xi32>",
        "%i = arith.fptosi %row : tensor<6xf32> to tensor<6xi32>",
        "%d = arith.divsi %i, %two : tensor<6xi32>",
        "%neg = arith.cmpi slt, %d, %i : tensor<6xi32>",
        "%f = arith.uitofp %neg : tensor<6xi1> to tensor<6xf32>",
        "%g = arith.sitofp %d : tensor<6xi32> to tensor<6xf32>",
        "%h = arith.addf %f, %g : tensor<6xf32>",
        '%pick = "moe.top_k"(%h) {k = 2 : i64} : (tensor<6xf32>) -> tensor<2xi32>',
        '%w = "moe.take"(%h, %pick) : (tensor<6xf32>, tensor<2xi32>) -> tensor<2xf32>',
    ),
    "mathematics": (
        PICK,
        "%a = math.absf %row : tensor<6xf32>",
        "%l = math.log1p %a : tensor<6xf32>",
        "%t = math.tanh %row : tensor<6xf32>",
        "%s = math.sqrt %a : tensor<6xf32>",
        "%e = math.erf %row : tensor<6xf32>",
        "%p = math.powf %a, %t : tensor<6xf32>",
        "%x1 = arith.addf %l, %t : tensor<6xf32>",
        "%x2 = arith.mulf %s, %e : tensor<6xf32>",
        "%x3 = arith.maximumf %x1, %x2 : tensor<6xf32>",
        "%x4 = arith.addf %x3, %p : tensor<6xf32>",
        "%w = tensor.extract_slice %x4[1] [2] [1] : tensor<6xf32> to tensor<2xf32>",
    ),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure(name):
    torch.manual_seed(4)
    x = 5 * torch.randn(TOKENS, 6)
    agree(body(*STRUCTURES[name]), {"x": x}, {"m": torch.randn(4, 6)})


def test_what_cannot_be_compiled_is_said_with_its_place():
    lines = (PICK, "%c = math.cos %row : tensor<6xf32>", "%w = tensor.extract_slice %c[0] [2] [1] : "
             "tensor<6xf32> to tensor<2xf32>")  # fmt: skip
    with pytest.raises(Unsupported) as caught:
        Artifact(body(*lines))
    (diagnostic,) = caught.value.diagnostics
    assert "math.cos" in diagnostic.message
    assert ":7:12" in diagnostic.notes[0]
