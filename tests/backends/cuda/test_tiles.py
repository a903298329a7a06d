"""Which tiles products get: by predicted times that are sane, and within what a device has."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_mlir import ir

from moec.backends.base import Unsupported
from moec.backends.cuda.arch import ARCHITECTURES
from moec.backends.cuda.matmul import cost, emit, tiles
from moec.backends.cuda.matmul.problem import Problem
from moec.backends.cuda.matmul.problem import problem as problem_of
from moec.backends.cuda.matmul.tile import WarpgroupTile
from moec.dialect import context
from tests.backends.cuda.products import Emitted, Product


def problem(product: Product) -> Problem:
    with context(), ir.Location.unknown():
        module = ir.Module.parse(product.text)
        (op,) = (
            op.operation
            for op in module.body.operations[0].regions[0].blocks[0].operations
            if "matmul" in op.operation.name
        )
        return problem_of(op)


WIDE = Product(inner=2048, columns=768, experts=128, per_token=8, products=2)


def test_a_wide_product_fills_the_registers_of_a_warpgroup() -> None:
    tile = tiles.many_rows(problem(WIDE), ARCHITECTURES["sm_90a"])
    assert isinstance(tile, WarpgroupTile)
    assert (tile.width, tile.products) == (128, 2)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_few_rows_are_few(arch: str) -> None:
    of = problem(WIDE)
    both = tiles.few_rows(of), tiles.many_rows(of, ARCHITECTURES[arch])
    limit = tiles.most_tokens_of_few_rows([(of, *both)], ARCHITECTURES[arch])
    assert 8 <= limit * of.per_token / of.experts <= 64


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_more_rows_take_longer_and_none_less_than_their_bytes(arch: str) -> None:
    of, device = problem(WIDE), cost.DEVICES[arch]
    tile = tiles.many_rows(of, ARCHITECTURES[arch])
    times = [cost.seconds(of, tile, device, rows) for rows in (0.1, 1, 16, 128, 129, 1000, 5000)]
    assert times == sorted(times)
    assert times[1] >= 2 * of.experts * of.columns * of.inner * of.products / device.memory


@settings(max_examples=20)
@given(
    inner=st.integers(1, 40).map(lambda n: 8 * n),
    columns=st.integers(1, 300),
    experts=st.integers(1, 512),
    products=st.integers(1, 12),
    transposed=st.booleans(),
    arch=st.sampled_from(sorted(ARCHITECTURES)),
)
def test_a_block_fits_or_the_reason_is_said(
    inner: int, columns: int, experts: int, products: int, transposed: bool, arch: str
) -> None:
    product = Product(inner, columns, experts, products=products, transposed=transposed)
    reason = ""
    try:
        made = Emitted(product, ARCHITECTURES[arch], emit.matmul)
        assert all(kernel.shared_bytes <= ARCHITECTURES[arch].shared_bytes for kernel in made.kernels)
    except Unsupported as why:
        reason = str(why)
    if "no multiple of 16 bytes" in reason:
        assert transposed
        assert columns % 8
    else:
        assert not reason or ("weights at once" in reason and products > 2)
