"""Products of very few rows: tiles that keep enough bytes on their way, and blocks that share an inner dimension."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_mlir import ir

from moec.backends.cuda.arch import ARCHITECTURES, Arch
from moec.backends.cuda.kernel import Kernel, Scope
from moec.backends.cuda.matmul import divided, emit, tiles
from moec.backends.cuda.matmul.problem import problem as problem_of
from moec.backends.cuda.matmul.tiles import Decode
from tests.backends.cuda.products import SWIGLU, Emitted, Product, error, inputs, sums
from tests.backends.cuda.simulator import Fault
from tests.backends.cuda.test_tiles import problem

WEIGHTED = """%e = "moe.element"(%w) {kind = "slot"} : (tensor<?x2xf32>) -> f32
      %u = arith.mulf %a0, %e : f32
      %b0 = "moe.element"(%b) {kind = "column"} : (tensor<3x33xf32>) -> f32
      %v = arith.addf %u, %b0 : f32"""
SM_80 = ARCHITECTURES["sm_80"]
GATED = Product(inner=376, columns=40, experts=3, per_token=2, products=2, body=SWIGLU)
DOWN = Product(inner=384, columns=33, experts=3, per_token=2, gather=False, body=WEIGHTED, out="f32")
DENSE = Product(inner=384, columns=72, experts=None, type="f16")
SHAPES = {
    "OLMoE": (64, 8, 2048, 1024),
    "Qwen3": (128, 8, 2048, 768),
    "Mixtral": (8, 2, 4096, 14336),
    "DeepSeek": (256, 8, 7168, 2048),
}


def share(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """Kernels of which three blocks share the inner dimension."""
    of = problem_of(op)
    return divided.kernels(of, Decode(tiles.few_rows(of), 3), scope, None, "f32", (0, tiles.DECODE + 1), "product")


@cache
def emitted(product: Product, fault: Fault | None = None) -> Emitted:
    return Emitted(product, ARCHITECTURES["sm_80"], share, fault)


def expected(product: Product, given: dict[str, torch.Tensor]) -> torch.Tensor:
    parts = [torch.from_numpy(one) for one in sums(product, given)]
    if product.products == 2:
        return torch.nn.functional.silu(parts[0]) * parts[1]
    if product.experts is None:
        return parts[0]
    slots, expert = given["s"].long(), torch.arange(product.experts).repeat_interleave(given["o"].long().diff())
    return parts[0] * given["w"].flatten()[slots, None] + given["b"][expert]


@pytest.mark.parametrize("product", [GATED, DOWN, DENSE], ids=["gated", "down", "dense"])
def test_blocks_that_share_an_inner_dimension(product: Product) -> None:
    cases = [(tokens, "even", tokens) for tokens in (0, 1, 3, 16)]
    if product.experts is not None:
        cases += [(16, "one", 0), (9, "dropped", 1)]
    for tokens, routing, order in cases:
        given = inputs(product, tokens, routing, seed=tokens)
        found = emitted(product).run(given, order)
        assert error(found, expected(product, given).numpy()) < (1e-5 if product.out == "f32" else 8e-3)
        # the same bits, whichever block comes first
        assert all(torch.equal(emitted(product).run(given, other), found) for other in (1, 7))


def test_a_product_that_is_shared_out_is_used_for_few_tokens_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "very_few_rows", lambda of, arch: Decode(tiles.few_rows(of), 2))
    made = Emitted(replace(GATED, inner=512), ARCHITECTURES["sm_90a"], emit.matmul)
    ranges = {one.name.removeprefix("t_"): one.tokens for one in made.kernels}
    limit = ranges["product"][0]
    assert ranges == {
        "product_parts": (0, 17),
        "product_sum": (0, 17),
        "product_few": (17, limit),
        "product": (limit, None),
    }
    assert sum(buffer.fixed for buffer in made.scope.buffers) == 4 * 2 * 2 * 32 * 40


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("return {out + (i64)split * products * rows * columns};", "return {out};"),
        ("for (int split = 1; split < splits; split++) sums[p] += term[split];", ""),
        ("before += plan.offsets[expert + 1] <= row;", "before += plan.offsets[expert] < row;"),
    ],
)
def test_faults_are_noticed(right: str, wrong: str) -> None:
    given = inputs(DOWN, 16, "even")
    found = emitted(DOWN, Fault("moec/matmul/partial.cuh", right, wrong)).run(given)
    assert error(found, expected(DOWN, given).numpy()) > 1e-2


@pytest.mark.parametrize("name", SHAPES)
def test_known_layers_keep_enough_on_their_way_with_whole_tiles(name: str) -> None:
    experts, per_token, d, ff = SHAPES[name]
    for inner, columns, products in ((d, ff, 2), (ff, d, 1)):
        of = problem(Product(inner, columns, experts, per_token, products=products))
        how = tiles.very_few_rows(of, SM_80)
        assert how == Decode(tiles.few_rows(of), 1)
        assert tiles.in_flight(of, how) == 1.0


def test_codes_are_cut_smaller_where_fewer_bytes_are_on_their_way() -> None:
    for bits, product in ((8, {"format": "int8"}), (4, {"format": "int4", "group": 32})):
        of = problem(Product(inner=4096, columns=1024, experts=16, **product))
        whole, how = Decode(tiles.few_rows(of), 1), tiles.very_few_rows(of, SM_80)
        assert how.tile.bits == bits
        assert how.splits > 1
        assert tiles.in_flight(of, how) > 2 * tiles.in_flight(of, whole)


def test_products_with_few_tiles_are_cut_smaller() -> None:
    shared = problem(Product(inner=5632, columns=2048, experts=None))
    switch = problem(Product(inner=3072, columns=768, experts=8))
    narrow = problem(Product(inner=1536, columns=256, experts=128, per_token=8, products=2))
    assert tiles.very_few_rows(shared, SM_80).splits == 4
    assert tiles.very_few_rows(switch, SM_80).splits == 8
    assert tiles.very_few_rows(narrow, SM_80) == Decode(
        replace(tiles.few_rows(narrow), width=16, stages=13, across=2), 1
    )
    for of in (shared, switch, narrow):
        assert tiles.in_flight(of, tiles.very_few_rows(of, SM_80)) > 0.85
        assert tiles.in_flight(of, Decode(tiles.few_rows(of), 1)) < 0.7


@settings(max_examples=25)
@given(
    inner=st.integers(1, 200).map(lambda n: 8 * n),
    columns=st.integers(1, 900),
    experts=st.integers(1, 256),
    products=st.integers(1, 2),
)
def test_every_step_has_a_block(inner: int, columns: int, experts: int, products: int) -> None:
    of = problem(Product(inner, columns, experts, products=products))
    how = tiles.very_few_rows(of, SM_80)
    assert -(-inner // 64) % how.splits == 0
    assert how.tile.shared_bytes(of.counters) <= 80 * 1024
    assert tiles.decode_seconds(of, how) <= tiles.decode_seconds(of, Decode(tiles.few_rows(of), 1))


def test_narrow_tiles_multiply() -> None:
    tile = replace(tiles.few_rows(problem(GATED)), width=16, stages=13, across=2)

    def narrow(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
        return (emit.warps.kernel(problem_of(op), tile, 2, scope, "narrow", None, "f32", (0, None)),)

    made = Emitted(GATED, ARCHITECTURES["sm_80"], narrow)
    for tokens, routing in ((1, "even"), (16, "even"), (40, "one")):
        given = inputs(GATED, tokens, routing)
        assert error(made.run(given), expected(GATED, given).numpy()) < 8e-3
