"""Whole routed experts on the simulator: plan, products and the sums of tokens, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.backends.cpu import modules
from tests.backends.cuda.calls import DTYPES, Function, close, together

# (model width, hidden width, experts, slots per token, dtype)
SIZES = [(72, 40, 5, 3, "bf16"), (16, 24, 3, 1, "f16"), (13, 7, 4, 2, "f32"), (264, 16, 9, 11, "bf16")]
TOKENS = 21


@pytest.fixture(scope="module")
def layers() -> dict[str, Function]:
    return together({str(size): modules.experts(*size) for size in SIZES})


def given(size: tuple[int, int, int, int, str], index: np.ndarray, seed: int) -> dict[str, torch.Tensor]:
    d, ff, experts, k, dtype = size
    random = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=random).to(DTYPES[dtype])  # noqa: E731
    return {
        "x": draw(len(index), d),
        "index": torch.tensor(index, dtype=torch.int32),
        "weight": torch.rand(len(index), k, generator=random),
        "gate": draw(experts, ff, d) / d**0.5,
        "up": draw(experts, ff, d) / d**0.5,
        "down": draw(experts, d, ff) / ff**0.5,
    }


def distinct(experts: int, k: int, tokens: int, seed: int) -> np.ndarray:
    """A token's experts, no one twice where there are enough; some slots are empty."""
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.arange(max(experts, k)) % experts)[:k] for _ in range(tokens)]
    index = np.array(rows).reshape(tokens, k)
    return np.where(rng.random(index.shape) < 0.2, -1, index)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("tokens", [0, 1, TOKENS])
def test_experts(layers: dict[str, Function], size: tuple[int, int, int, int, str], tokens: int) -> None:
    _, _, experts, k, dtype = size
    for seed, index in enumerate([distinct(experts, k, tokens, tokens), np.zeros((tokens, k), np.int64)]):
        arguments = given(size, index, seed)
        out = layers[str(size)](arguments, tokens)
        close(out["y"], layers[str(size)].expected(arguments)["y"], {"f32": 1e-5, "f16": 4e-3, "bf16": 3e-2}[dtype])


def test_a_token_without_experts_is_zero(layers: dict[str, Function]) -> None:
    size = SIZES[0]
    index = np.full((4, 3), -1)
    index[2] = 1
    y = layers[str(size)](given(size, index, 0), 4)["y"]
    assert y[2].any()
    assert not y[[0, 1, 3]].any()


def test_a_token_has_the_same_bits_in_any_order_of_threads(layers: dict[str, Function]) -> None:
    size = SIZES[3]
    arguments = given(size, distinct(9, 11, TOKENS, 1), 1)
    first, *others = [layers[str(size)](arguments, TOKENS, order)["y"] for order in (0, 1, 5)]
    assert all(torch.equal(first.view(torch.int16), other.view(torch.int16)) for other in others)
