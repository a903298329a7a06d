"""Row programs on the simulator against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moec.backends.base import Unsupported
from tests.backends.cpu import programs
from tests.backends.cpu.test_route import STRUCTURES, body
from tests.backends.cuda.calls import Function, close, together

TOKENS = 19
SOFTMAX = [(1, 1), (3, 2), (4, 4), (64, 8), (100, 7), (128, 40)]
PRODUCTS = [("bf16", 70), ("f32", 7)]
GROUPS = [(32, 4, 2, 6), (15, 5, 3, 4), (256, 8, 4, 8)]
MASSES = [0.1, 0.6, 1.0]


@pytest.fixture(scope="module")
def layers() -> dict[str, Function]:
    texts = {f"softmax {case}": programs.softmax_top(*case) for case in SOFTMAX}
    texts |= {f"top {count}": programs.plain_top(count, 5) for count in (5, 33)}
    texts |= {f"product {case}": programs.linear_softmax(*case, 6, 2) for case in PRODUCTS}
    texts |= {f"groups {case}": programs.groups(*case) for case in GROUPS}
    texts |= {f"mass {mass}": programs.top_p(11, mass, 6) for mass in MASSES}
    texts |= {name: body(*lines) for name, lines in STRUCTURES.items()}
    return together({"table": programs.table(50, 3), **texts})


def agree(layer: Function, given: dict[str, torch.Tensor], tokens: int = TOKENS) -> None:
    want = layer.expected(given)
    out = layer(given, tokens)
    close(out["index"], want["index"])
    close(out["weight"], want["weight"], 2e-6)


@pytest.mark.parametrize("case", SOFTMAX)
def test_softmax_and_top_k_of_any_width(layers: dict[str, Function], case: tuple[int, int]) -> None:
    torch.manual_seed(case[0])
    agree(layers[f"softmax {case}"], {"x": 3 * torch.randn(TOKENS, case[0])})


@pytest.mark.parametrize("count", [5, 33])
def test_top_k_puts_nan_first_and_breaks_ties_by_position(layers: dict[str, Function], count: int) -> None:
    rng = np.random.default_rng(count)
    x = rng.choice(np.float32([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3e38]), (50, count))
    x.view(np.uint32)[:, 0][np.isnan(x[:, 0])] = 0xFFC00000  # a NaN with its sign set
    agree(layers[f"top {count}"], {"x": torch.tensor(x)}, 50)


@pytest.mark.parametrize("case", PRODUCTS)
def test_a_product_inside_the_program(layers: dict[str, Function], case: tuple[str, int]) -> None:
    dtype, width = case
    torch.manual_seed(width)
    x = torch.randn(TOKENS, width).to(torch.bfloat16 if dtype == "bf16" else torch.float32)
    agree(layers[f"product {case}"], {"x": x, "w0": torch.randn(6, width)})


@pytest.mark.parametrize("case", GROUPS)
def test_groups(layers: dict[str, Function], case: tuple[int, int, int, int]) -> None:
    count = case[0]
    torch.manual_seed(count)
    agree(layers[f"groups {case}"], {"x": torch.randn(TOKENS, count), "bias": torch.randn(count)})


@pytest.mark.parametrize("mass", MASSES)
def test_top_p(layers: dict[str, Function], mass: float) -> None:
    torch.manual_seed(1)
    agree(layers[f"mass {mass}"], {"x": 2 * torch.randn(TOKENS, 11)})


def test_a_table_of_ids(layers: dict[str, Function]) -> None:
    torch.manual_seed(2)
    table = torch.randint(0, 9, (50, 3), dtype=torch.int32)
    ids = torch.randint(0, 50, (TOKENS,), dtype=torch.int32)
    agree(layers["table"], {"x": torch.zeros(TOKENS, 4), "ids": ids, "table": table})


def test_an_id_beyond_the_table_has_no_expert(layers: dict[str, Function]) -> None:
    ids = torch.tensor([1, -1, 50, 2**31 - 1, -(2**31), 49], dtype=torch.int32)
    given = {"x": torch.zeros(6, 4), "ids": ids, "table": torch.full((50, 3), 4, dtype=torch.int32)}
    index = layers["table"](given, 6)["index"]
    assert index.tolist() == [[4] * 3, *([[-1] * 3] * 4), [4] * 3]


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure(layers: dict[str, Function], name: str) -> None:
    torch.manual_seed(4)
    agree(layers[name], {"x": 5 * torch.randn(TOKENS, 6), "m": torch.randn(4, 6)})


def test_a_token_has_the_same_bits_in_any_batch_and_order(layers: dict[str, Function]) -> None:
    torch.manual_seed(3)
    layer = layers["softmax (100, 7)"]
    x = torch.randn(40, 100)
    x[17] = float("nan")
    x[18, 3] = float("inf")
    whole, backwards, part = layer({"x": x}, 40), layer({"x": x}, 40, 1), layer({"x": x[30:35]}, 5)
    for name in ("index", "weight"):
        bits = whole[name].view(torch.int32)
        assert torch.equal(bits, backwards[name].view(torch.int32))
        assert torch.equal(bits[30:35], part[name].view(torch.int32))
    finite = [n for n in range(40) if n not in (17, 18)]
    assert whole["weight"][finite].isfinite().all()


def test_no_tokens(layers: dict[str, Function]) -> None:
    assert layers["softmax (64, 8)"]({"x": torch.empty(0, 64)}, 0)["index"].shape == (0, 8)


def test_what_cannot_be_compiled_is_said_with_its_place() -> None:
    first, *_ = STRUCTURES["slice of the middle"]
    lines = (first, "%c = math.cos %row : tensor<6xf32>", "%w = tensor.extract_slice %c[0] [2] [1] : "
             "tensor<6xf32> to tensor<2xf32>")  # fmt: skip
    with pytest.raises(Unsupported) as caught:
        Function(body(*lines))
    (diagnostic,) = caught.value.diagnostics
    assert "math.cos" in diagnostic.message
    assert ":7:12" in diagnostic.notes[0]
