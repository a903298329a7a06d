"""Matmuls on the simulator against float64: awkward sizes, and routings that break schedules."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from moec.backends.cuda.arch import ARCHITECTURES
from moec.backends.cuda.matmul import emit
from tests.backends.cuda.products import SWIGLU, Emitted, Product, error, inputs, sums

emitted = cache(lambda product, arch: Emitted(product, ARCHITECTURES[arch], emit.matmul))
TOLERANCE = {"bf16": 2**-8, "f16": 2**-11, "f32": 1e-5}

CALLS = [(0, "even"), (1, "even"), (7, "dropped"), (150, "one"), (290, "even"), (130, "few")]

UP = Product(inner=136, columns=72, experts=5, per_token=2, products=2, body=SWIGLU)


def swiglu(product: Product, given: dict[str, torch.Tensor]) -> np.ndarray:
    g, u = sums(product, given)
    return g / (1 + np.exp(-g)) * u


@pytest.mark.parametrize("type_", ["bf16", "f16"])
@pytest.mark.parametrize("arch", ["sm_90a"])
def test_gathered_rows_and_two_weights(arch: str, type_: str) -> None:
    product = replace(UP, type=type_)
    for tokens, routing in CALLS:
        given = inputs(product, tokens, routing, seed=tokens)
        found = emitted(product, arch).run(given, seed=tokens)
        assert error(found, swiglu(product, given)) < TOLERANCE[type_], (tokens, routing)
