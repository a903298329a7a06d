"""Logits, routes and the counts of a plan in one kernel, in small, against the oracle."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from moec.backends.cuda import fusion, planned, route, sorting
from tests.backends.cpu.programs import choose, softmax
from tests.backends.cuda.calls import Function, close, orders, together

# (columns, inner, experts chosen)
SIZES = [(64, 72, 3), (20, 40, 2), (250, 24, 8)]
KEPT = (20, 40, 2)
"""The logits of this one are also a result."""
DECODE, FEW, MANY, BLOCKS = 9, 40, 200, 2


def routed(columns: int, inner: int, k: int, dtype: str = "bf16") -> str:
    x, w, whole = f"tensor<?x{inner}x{dtype}>", f"tensor<{columns}x{inner}xf32>", f"tensor<1x{columns}x{inner}xf32>"
    logits, index, weight = f"tensor<?x{columns}xf32>", f"tensor<?x{k}xi32>", f"tensor<?x{k}xf32>"
    made = f"tensor<{columns + 1}xi32>, tensor<?xi32>"
    kept = (columns, inner, k) == KEPT
    return f"""
module attributes {{moe.layer = "L"}} {{
  func.func @L(%x: {x} {{moe.name = "x", moe.role = "input"}}, %router: {w} {{moe.name = "w", moe.role = "parameter"}})
      -> ({index} {{moe.name = "index"}}, {weight} {{moe.name = "weight"}}, tensor<{columns + 1}xi32>
      {{moe.name = "offsets"}}, tensor<?xi32> {{moe.name = "slots"}}{f', {logits} {{moe.name = "logits"}}' * kept}) {{
    %e = tensor.expand_shape %router [[0, 1], [2]] output_shape [1, {columns}, {inner}] : {w} into {whole}
    %l = "moe.matmul"(%x, %e) ({{
    ^bb0(%a: f32):
      "moe.yield"(%a) : (f32) -> ()
    }}) {{operandSegmentSizes = array<i32: 1, 1>}} : ({x}, {whole}) -> {logits}
    %i, %v = "moe.route"(%x) ({{
    ^bb0(%row: tensor<{inner}x{dtype}>):
      %z = "moe.row"(%l) : ({logits}) -> tensor<{columns}xf32>
      {softmax("%z", columns)}{choose("%p", columns, k)}
    }}) : ({x}) -> ({index}, {weight})
    %o, %s = "moe.plan"(%i) {{experts = {columns} : i64, direct_max_tokens = 0 : i64}} : ({index}) -> ({made})
    return %i, %v, %o, %s{", %l" * kept} : {index}, {weight}, {made}{f", {logits}" * kept}
  }}
}}"""


@pytest.fixture(scope="module")
def layers() -> Iterator[dict[str, Function]]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (planned, route, sorting):
            patch.setattr(module, "BLOCKS", BLOCKS)
        for module in (route, sorting):
            patch.setattr(module, "FEW", FEW)
            patch.setattr(module, "DECODE", DECODE)
        for module in (fusion, route):
            patch.setattr(module, "TILES", {FEW: 64, MANY: 128})
        patch.setattr(sorting, "ALONE", 2 * FEW)
        yield together({str(size): routed(*size) for size in SIZES} | {"f16": routed(*KEPT, dtype="f16")})


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("tokens", [0, 1, DECODE, DECODE + 1, FEW - 1, FEW, 137, MANY, 301])
def test_a_router(layers: dict[str, Function], size: tuple[int, int, int], tokens: int) -> None:
    torch.manual_seed(tokens)
    columns, inner, _ = size
    given = {"x": torch.randn(tokens, inner).bfloat16(), "w": torch.randn(columns, inner)}
    layer = layers[str(size)]
    want, out = layer.expected(given), layer(given, tokens)
    for name in ("index", "offsets", "slots"):
        close(out[name], want[name])
    close(out["weight"], want["weight"], 1e-5)
    if size == KEPT:
        close(out["logits"], want["logits"], 1e-5)


def awkward(tokens: int, inner: int) -> torch.Tensor:
    """All kinds of f16: of few bits and of many, subnormal ones, zeros and the largest."""
    bits = torch.randint(0, 0x7C00, (tokens, inner)) | torch.randint(0, 2, (tokens, inner)) << 15
    bits[:, ::3] &= 0xFFC0
    x = torch.where(bits < 0x8000, bits, bits - 0x10000).to(torch.int16).view(torch.float16)
    x[0], x[1, ::2], x[2, 1::2], x[3] = 0.0, -0.0, 65504.0, torch.finfo(torch.float16).smallest_normal / 1024
    return x


@pytest.mark.parametrize("tokens", [0, 1, FEW - 1, FEW, MANY])
def test_a_router_of_f16(layers: dict[str, Function], tokens: int) -> None:
    torch.manual_seed(tokens)
    given = {"x": torch.randn(tokens, 40).half(), "w": torch.randn(20, 40)}
    want, out = layers["f16"].expected(given), layers["f16"](given, tokens)
    for name in ("index", "offsets", "slots"):
        close(out[name], want[name])
    close(out["weight"], want["weight"], 1e-5)
    close(out["logits"], want["logits"], 1e-5)


@pytest.mark.parametrize("tokens", [FEW, MANY])
def test_logits_of_f16_are_as_exact_as_f32(layers: dict[str, Function], tokens: int) -> None:
    torch.manual_seed(0)
    x, w = awkward(tokens, 40), torch.randn(20, 40) * 10.0 ** torch.randint(-30, 30, (20, 1))
    logits = layers["f16"]({"x": x, "w": w}, tokens)["logits"].double()
    exact = x.double() @ w.double().T
    bound = x.double().abs() @ w.double().abs().T * (6 * 40 * 2**-24)
    assert ((logits - exact).abs() <= bound).all()
    # where sums do not round, nothing is lost: products of one f16 and one f32 alone
    alone = torch.zeros(tokens, 40).half()
    alone[:, 7] = x[:, 7]
    found = layers["f16"]({"x": alone, "w": w}, tokens)["logits"]
    near = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0)) - 1
    single = alone[:, 7, None].double() * w[:, 7].double()
    assert ((found.double() - single).abs() <= single.abs() * near).all()


def test_logits_of_f16_and_infinite_weights(layers: dict[str, Function]) -> None:
    torch.manual_seed(0)
    x, w = torch.randn(MANY, 40).abs().half() + 1, torch.randn(20, 40)
    x[::2] = 1.0  # whose factors would be itself and 0
    w[3, 5], w[4, 6] = float("inf"), -float("inf")
    logits = layers["f16"]({"x": x, "w": w}, MANY)["logits"]
    assert (logits[:, 3] == torch.inf).all()
    assert (logits[:, 4] == -torch.inf).all()
    assert torch.isfinite(logits).sum() == 18 * MANY


def test_which_kernels_run(layers: dict[str, Function]) -> None:
    made = [(kernel.name.partition("_")[2], kernel.tokens) for kernel in layers[str(SIZES[0])].kernels]
    assert [kernel for kernel in made if not kernel[0].startswith("product")] == [
        ("route", (DECODE + 1, FEW)),
        ("route_plan", (0, DECODE + 1)),
        ("router64", (FEW, MANY)),
        ("router128", (MANY, None)),
        ("plan_alone", (DECODE + 1, 2 * FEW // 3 + 1)),
        ("plan_count", (2 * FEW // 3 + 1, FEW)),
        ("plan_place", (2 * FEW // 3 + 1, None)),
    ]


def test_logits_are_as_exact_as_f32(layers: dict[str, Function]) -> None:
    torch.manual_seed(0)
    x, w = torch.randn(MANY, 40).bfloat16(), torch.randn(20, 40)
    logits = layers[str(KEPT)]({"x": x, "w": w}, MANY)["logits"]
    exact = x.double() @ w.double().T
    assert (logits - exact).abs().max() <= (x.float() @ w.T - exact).abs().max() * 2


def test_logits_of_tiny_and_infinite_weights(layers: dict[str, Function]) -> None:
    torch.manual_seed(0)
    x, w = torch.ones(MANY, 40).bfloat16(), torch.zeros(20, 40)
    w[:, 1::2] = 1.0
    w[:, ::2] = torch.randint(1, 0x7FFFFF, (20, 20)).int().view(torch.float32)  # subnormal numbers
    w[3, 5], w[4, 6] = float("inf"), -float("inf")
    logits = layers[str(KEPT)]({"x": x, "w": w}, MANY)["logits"]
    assert torch.equal(logits.double(), (x.double() @ w.double().T).float().double())


@pytest.mark.parametrize("order", orders())
def test_the_same_bits_in_any_order(layers: dict[str, Function], order: int) -> None:
    torch.manual_seed(1)
    given = {"x": torch.randn(150, 72).bfloat16(), "w": torch.randn(64, 72)}
    first, again = (layers[str(SIZES[0])](given, 150, o) for o in (0, order))
    assert torch.equal(first["index"], again["index"])
    assert torch.equal(first["weight"].view(torch.int32), again["weight"].view(torch.int32))
