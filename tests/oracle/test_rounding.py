"""What the oracle's `truncf` rounds to, against PyTorch's and NumPy's own f16 and bf16."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moec import oracle
from moec.dialect import context
from moec.pipeline.ir_text import parse

DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16}


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """f32 values to the dtype and back."""
    module = parse(
        f"""func.func @f(%x: tensor<?xf32> {{moe.name = "x", moe.role = "input"}})
        -> (tensor<?xf32> {{moe.name = "y"}}) {{
  %t = arith.truncf %x : tensor<?xf32> to tensor<?x{dtype}>
  %y = arith.extf %t : tensor<?x{dtype}> to tensor<?xf32>
  return %y : tensor<?xf32>
}}""",
        "rounded",
        context(),
    )
    with np.errstate(invalid="ignore"):  # NumPy says so of signalling NaN
        return oracle.run(module, {"x": values})["y"]


def awkward() -> np.ndarray:
    """All f16, the points half way between neighbours and what lies beside these, and what no f16 stands for."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middle = (halves[:-1] + halves[1:]) / 2
    beyond = [65504, 65519.996, 65520, 65536, 3e38, np.inf, np.nan, 1e-45, 2.9802322e-08, 2.9802326e-08, 6e-8, 6.1e-5]
    one_side = np.concatenate([halves, middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf), beyond])
    return np.concatenate([one_side, -one_side]).astype(np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_is_that_of_pytorch(dtype: str) -> None:
    random = np.random.default_rng(0)
    values = random.integers(0, 2**32, 100_000, dtype=np.uint32).view(np.float32)
    values = np.concatenate([values, awkward()])
    got = rounded(values, dtype)
    want = torch.from_numpy(values).to(DTYPES[dtype]).double().numpy()
    np.testing.assert_array_equal(got, want)
    assert (np.signbit(got) == np.signbit(want))[~np.isnan(want)].all()


def test_f16_overflows_to_infinity_and_keeps_subnormal_numbers() -> None:
    got = rounded(np.float32([65504, 65519, 65520, -65520, 2**-24, 2**-25, 3 * 2**-26, np.nan]), "f16")
    np.testing.assert_array_equal(got, [65504, 65504, np.inf, -np.inf, 2**-24, 0, 2**-24, np.nan])


@given(st.floats(width=32))
def test_f16_is_that_of_numpy(value: float) -> None:
    with np.errstate(over="ignore"):
        want = float(np.float16(np.float32(value)))
    np.testing.assert_array_equal(rounded(np.float32([value]), "f16"), [want])
