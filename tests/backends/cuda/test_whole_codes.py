"""Products of codes with rows in int8 on the simulator: whole numbers that are exact, scaled in f32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch_mlir import ir

from moec.backends.base import Unsupported
from moec.backends.cuda.arch import ARCHITECTURES, Arch
from moec.backends.cuda.kernel import Kernel, Scope
from moec.backends.cuda.matmul import cost, divided, tiles
from moec.backends.cuda.matmul.problem import problem as problem_of
from moec.backends.cuda.matmul.tile import CodedWarpgroupTile, WarpTile
from moec.backends.cuda.matmul.tiles import Decode
from moec.formats import FORMATS
from tests.backends.cuda.products import SWIGLU, Emitted, Product, error, inputs, sums
from tests.backends.cuda.simulator import Fault, SimulatorError
from tests.backends.cuda.test_codes import FEW, MANY, emitted, number
from tests.backends.cuda.test_products import DOWN, WEIGHTED, swiglu, weighted
from tests.backends.cuda.test_tiles import problem

pytestmark = pytest.mark.long

EXACT = 3e-7
"""Of results in f32: whole numbers are exact, what is left are the roundings of scales."""
UP = Product(
    inner=144, columns=72, experts=3, per_token=2, products=2, format="int8", out="f32", body=SWIGLU, rounded=True
)
ONE = replace(UP, products=1, body=Product.body)
PRODUCTS = {
    "int8": UP,
    "int8_f16": replace(ONE, inner=272, columns=75, type="f16"),
    "int8_32": replace(UP, inner=96, group=32),
    "int8_64": replace(ONE, inner=320, group=64),
    "int4": replace(UP, inner=136, format="int4"),
    "int4_32": replace(UP, inner=224, columns=75, format="int4", group=32, scale="bf16"),
    "int4_64": replace(UP, inner=192, format="int4", group=64),
    "int4_128": replace(ONE, inner=384, format="int4", group=128, type="f32"),
    "ternary": replace(UP, inner=200, format="ternary"),
    "ternary_32": replace(ONE, inner=160, format="ternary", group=32),
    "ternary_128": replace(UP, inner=256, format="ternary", group=128),
}
CALLS = [(0, "even"), (1, "even"), (19, "dropped"), (150, "one"), (90, "few")]
QUICK = ("int8", "int4_32", "int4_128", "ternary")
"""The others take the same code by other templates."""


@pytest.mark.parametrize(
    ("arch", "which"), [("sm_80", FEW), ("sm_80", MANY), ("sm_90a", MANY)], ids=["few", "many", "wgmma"]
)
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PRODUCTS]
)
def test_every_format(name: str, arch: str, which: str) -> None:
    product = PRODUCTS[name]
    made = emitted(product, which, arch)
    by_wgmma = arch == "sm_90a" and not name.endswith(("_32", "_64"))
    assert ("moec::CodedWarpgroupTile<moec::i8," in made.source) == by_wgmma
    for tokens, routing in CALLS:
        given = inputs(product, tokens, routing, seed=tokens)
        wanted = swiglu(product, given) if product.products == 2 else sums(product, given)[0]
        assert error(made.run(given, seed=tokens), wanted) < EXACT, (tokens, routing)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_what_an_epilogue_reads_of_rows_in_plan_order(arch: str) -> None:
    product = replace(DOWN, inner=80, per_token=1, format="int8", scale="bf16", out="f32", rounded=True)
    product = replace(product, body=WEIGHTED.replace("x3xf32", "x1xf32"))
    for tokens, routing in [(60, "one"), (130, "even")]:
        given = inputs(product, tokens, routing)
        assert error(emitted(product, None, arch).run(given), weighted(product, given)) < EXACT


@pytest.mark.parametrize("name", ["int8", "int4_32", "ternary"])
def test_blocks_that_share_an_inner_dimension(name: str) -> None:
    product = replace(PRODUCTS[name], inner=384)

    def share(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
        of = problem_of(op)
        return divided.kernels(of, Decode(tiles.few_rows(of), 3), scope, None, "f32", (0, tiles.DECODE + 1), "product")

    made = Emitted(product, ARCHITECTURES["sm_80"], share)
    for tokens, routing in [(0, "even"), (3, "even"), (16, "one"), (9, "dropped")]:
        given = inputs(product, tokens, routing, seed=tokens)
        assert error(made.run(given), swiglu(product, given)) < EXACT


def _codes(format: str, columns: int, inner: int, seed: int) -> torch.Tensor:
    """Every code that a device takes, at random places; channel 0 has the lowest everywhere."""
    lowest = -128 if format == "int8" else FORMATS[format].lowest
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(lowest, FORMATS[format].highest + 1, (1, columns, inner), generator=random, dtype=torch.int8)
    codes[:, 0] = lowest
    return codes


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("format", ["int8", "int4", "ternary"])
def test_results_are_those_of_whole_numbers_to_the_last_bit(format: str, arch: str) -> None:
    """Sums beyond 2^24, which f32 does not have, are rounded once, then times the channel's scale, then the row's."""
    inner = 4112
    product = Product(inner=inner, columns=9, experts=None, format=format, out="f32", rounded=True)
    given = inputs(product, 70)
    given["c0"] = _codes(format, 9, inner, seed=1)
    codes = torch.randint(-127, 128, (70, inner), generator=torch.Generator().manual_seed(2))
    codes[:, 0], codes[1], codes[2, 1:] = 127, 127, -127
    given["x"] = codes.bfloat16()  # whole numbers whose largest is 127: a row's scale is 1
    given["x"][3] *= 0.25
    total = (codes @ given["c0"][0].long().T).float()
    assert format != "int8" or total.abs().max() > 2**24
    wanted = total * given["s0"][0] * torch.where(torch.arange(70) == 3, 0.25, 1.0)[:, None]
    for which in (FEW, MANY):
        assert torch.equal(emitted(product, which, arch).run(given), wanted), which


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_rows_of_zeros_and_rows_that_are_not_finite(arch: str) -> None:
    product = replace(PRODUCTS["int4"], experts=None, per_token=1)
    given = inputs(product, 40)
    given["x"][3] = 0
    given["x"][5, 7], given["x"][6, 0] = float("nan"), float("inf")
    found = emitted(product, MANY, arch).run(given)
    assert found[5:7].isnan().all()
    assert np.isfinite(np.delete(found.numpy(), [3, 5, 6], 0)).all()


CODES, ROWS = "moec/matmul/whole_codes.cuh", "moec/rowcodes.cuh"
NUMBERS = {
    "elements of packed rows in another order": (CODES, "0x5140", "0x1540", "int4_32", FEW),
    "nibbles that are not signed": (
        CODES,
        "(word & 0xf0f0f0f0u) ^ 0x80808080u",
        "(word & 0xf0f0f0f0u)",
        "int4_32",
        FEW,
    ),
    "codes of the other 32": (CODES, "word >> 8 * part &", "word &", "ternary", FEW),
    "a bias that stays": (CODES, "- 0x01010101u) ^", "- 0x00000000u) ^", "ternary", FEW),
    "sums of groups that begin elsewhere": (CODES, "- 12582912.0f", "- 12582928.0f", "int4_32", FEW),
    "codes that stay times 16": (CODES, "(sum / widened<typename Tile::Weight::Code>)", "(sum)", "int4", FEW),
    "scales of another row": (ROWS, "scales[row] = scale;", "scales[row ^ 1] = scale;", "int8", FEW),
    "lines of the other half": (CODES, "half * each + n * each / 2", "n * each / 2", "int4_128", MANY),
    "nibbles of another lane": (CODES, "at[upper * 2 + c / 2]", "at[c]", "int4_128", MANY),
    "pairs in another order": (CODES, "odd ? 0x3131u : 0x2020u", "odd ? 0x1313u : 0x2020u", "int4_128", MANY),
    "ternary pairs of another lane": (CODES, ">> 4 * odd;", ";", "ternary", MANY),
}
CODED = "moec/matmul/coded_warpgroups.cuh"
ORDER = {
    "registers of a matrix written while wgmma reads them": (
        ("if constexpr (!Tile::grouped) wgmma_wait<1>(sums);", "if constexpr (!Tile::grouped) wgmma_wait<2>(sums);"),
        "int8",
        "registers of a matrix were changed while wgmma worked on it",
    ),
    "sums of a group scaled while wgmma adds to them": (
        ("            wgmma_wait<0>(some);\n            add", "            add"),
        "int4_128",
        "is read by products of warpgroup",
    ),
    "a stage given back while others of the warp read codes": (
        ("          sync_warp();\n          ring", "          ring"),
        "int4",
        "is read by thread",
    ),
}


def _faulty(name: str, which: str, fault: Fault) -> tuple[Emitted, Product]:
    inner = PRODUCTS[name].inner * 2 + 8 * (name == "int4")  # more than a stage; lines of int4 end with 8 zeros
    product = replace(PRODUCTS[name], products=1, body=Product.body, inner=inner)
    arch = ARCHITECTURES["sm_90a" if which == MANY else "sm_80"]
    return Emitted(product, arch, lambda op, scope, a: number(which, op, scope, a), fault), product


@pytest.mark.parametrize("name", NUMBERS)
def test_a_fault_that_breaks_no_rule_changes_numbers(name: str) -> None:
    header, right, wrong, of, which = NUMBERS[name]
    made, product = _faulty(of, which, Fault(header, right, wrong))
    given = inputs(product, 40)
    given["x"] *= 1 + torch.arange(len(given["x"]))[:, None] % 3  # rows of different scales
    assert error(made.run(given), sums(product, given)[0]) > 1e-3


@pytest.mark.parametrize("name", ORDER)
def test_a_fault_of_order_is_found(name: str) -> None:
    (right, wrong), of, found = ORDER[name]
    made, product = _faulty(of, MANY, Fault(CODED, right, wrong))
    with pytest.raises(SimulatorError, match=found):
        made.run(inputs(product, 200))


def test_sums_that_32_bits_may_not_hold_are_refused() -> None:
    wide = replace(ONE, inner=132112, columns=8)
    with pytest.raises(Unsupported, match="sums of 132112 products of integers do not fit into 32 bits"):
        emitted(wide, None)


def test_tiles_and_what_they_are_predicted_to_take() -> None:
    """Whole numbers halve the time; sums of up to 64 are better scaled by warps, those of more by warpgroups."""
    wide = Product(inner=2048, columns=768, experts=128, per_token=8, products=2, format="int8", rounded=True)
    h100, device = ARCHITECTURES["sm_90a"], cost.DEVICES["sm_90a"]
    found = {}
    for group in (None, 32, 64, 128):
        of = problem(replace(wide, format="int4" if group else "int8", group=group))
        found[group] = of, tiles.many_rows(of, h100)
    assert [type(tile) for _, tile in found.values()] == [
        CodedWarpgroupTile, WarpTile, WarpTile, CodedWarpgroupTile
    ]  # fmt: skip
    of, tile = found[None]
    before = problem(replace(wide, rounded=False))
    assert cost.seconds(of, tile, device, 2048) < 0.6 * cost.seconds(
        before, tiles.many_rows(before, h100), device, 2048
    )
