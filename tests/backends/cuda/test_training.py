"""The functions that train a layer on the simulator against the oracle, and the sums that they are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.backends.cpu.training import Sizes
from tests.backends.cuda.calls import DTYPES, Function, close, exact, together

TOKENS = 13
SUM = """
module attributes {{moe.layer = "L"}} {{
  func.func @L(%a: tensor<?x{n}x{dtype}> {{moe.name = "a", moe.role = "input"}}, %i: tensor<?x3xi32>
      {{moe.name = "index", moe.role = "input"}}, %w: tensor<?x3xf32> {{moe.name = "weight", moe.role = "input"}})
      -> (tensor<5x{n}x{dtype}> {{moe.name = "sum"}}, tensor<1x{n}xf32> {{moe.name = "all"}},
      tensor<?x3xf32> {{moe.name = "again"}}) {{
    %o, %s = "moe.plan"(%i) {{experts = 5 : i64, direct_max_tokens = 0 : i64}}
      : (tensor<?x3xi32>) -> (tensor<6xi32>, tensor<?xi32>)
    %f = "moe.row_values"(%w, %s) : (tensor<?x3xf32>, tensor<?xi32>) -> tensor<?x1xf32>
    %g = "moe.group_sum"(%a, %o, %s, %f) {{gather = true, operandSegmentSizes = array<i32: 1, 1, 1, 1>,
      slots_per_token = 3 : i64}}
      : (tensor<?x{n}x{dtype}>, tensor<6xi32>, tensor<?xi32>, tensor<?x1xf32>) -> tensor<5x{n}x{dtype}>
    %d = "moe.dense_group_sum"(%a) : (tensor<?x{n}x{dtype}>) -> tensor<1x{n}xf32>
    %v = "moe.slot_values"(%f, %s, %i) : (tensor<?x1xf32>, tensor<?xi32>, tensor<?x3xi32>) -> tensor<?x3xf32>
    return %g, %d, %v : tensor<5x{n}x{dtype}>, tensor<1x{n}xf32>, tensor<?x3xf32>
  }}
}}"""
SUMS = [(40, "f32"), (7, "bf16")]


@pytest.fixture(scope="module")
def sums() -> dict[str, Function]:
    return together({str(case): SUM.format(n=case[0], dtype=case[1]) for case in SUMS})


@pytest.mark.parametrize("case", SUMS, ids=str)
@pytest.mark.parametrize("tokens", [0, 1, 90])
def test_sums(sums: dict[str, Function], case: tuple[int, str], tokens: int) -> None:
    random = torch.Generator().manual_seed(tokens)
    given = {
        "a": torch.randn(tokens, case[0], generator=random).to(DTYPES[case[1]]),
        "index": torch.randint(-1, 4, (tokens, 3), generator=random, dtype=torch.int32),
        "weight": torch.randn(tokens, 3, generator=random),
    }
    want, out = sums[str(case)].expected(given), sums[str(case)](given, tokens)
    close(out["sum"], want["sum"], 1e-5 if case[1] == "f32" else 8e-3)
    close(out["all"], want["all"], 1e-5)
    close(out["again"], want["again"])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_forward_and_backward(dtype: str) -> None:
    sizes = Sizes(d=24, ff=16, experts=6, k=2, dtype=dtype)
    forward, backward = Function(sizes.text(), function=1), Function(sizes.text(), function=2, prefix="back")
    given = sizes.given(TOKENS)
    out = {}
    for function in (forward, backward):
        found = function(given, TOKENS)
        want = function.expected(given)
        for name, array in want.items():
            error = np.abs(exact(found[name]) - array).max(initial=0.0)
            assert error <= (1e-5 if dtype == "f32" else 2e-2) * np.abs(array).max(initial=1.0), name
        out |= found
        given |= {name: found[name] for name in want if name not in given}
