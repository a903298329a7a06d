"""Products of codes by wgmma, which takes decoded weights from registers: numbers, and faults of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch_mlir import ir

from moec.backends.cuda.arch import ARCHITECTURES, Arch
from moec.backends.cuda.kernel import Kernel, Scope
from moec.backends.cuda.matmul import coded, cost, launch, tiles
from moec.backends.cuda.matmul.problem import problem as problem_of
from moec.backends.cuda.matmul.tile import CodedWarpgroupTile, WarpTile
from moec.formats import FORMATS
from tests.backends.cuda.products import Emitted, Product, error, inputs, sums
from tests.backends.cuda.simulator import Fault, SimulatorError
from tests.backends.cuda.test_codes import DOWN_CODES, MANY, SMALL, UP, emitted, number
from tests.backends.cuda.test_products import TOLERANCE, swiglu, weighted
from tests.backends.cuda.test_tiles import problem

pytestmark = pytest.mark.long

H100 = ARCHITECTURES["sm_90a"]
CALLS = [(0, "even"), (1, "even"), (150, "one"), (90, "dropped"), (130, "few")]
GATED = {
    "int8": UP,
    "fp8": replace(UP, format="fp8_e4m3", type="f16", columns=75),
    "int4": SMALL["int4"],
    "ternary": SMALL["ternary"],
}


@pytest.mark.parametrize("name", GATED)
def test_gathered_rows_and_two_weights(name: str) -> None:
    product = GATED[name]
    made = emitted(product, MANY, "sm_90a")
    assert "moec::CodedWarpgroupTile<" in made.source
    for tokens, routing in CALLS:
        given = inputs(product, tokens, routing, seed=tokens)
        assert error(made.run(given, seed=tokens), swiglu(product, given)) < TOLERANCE[product.type], (tokens, routing)


@pytest.mark.parametrize("name", ["int4_32", "int4_64_f16", "int4_96", "ternary_128", "fp8_32"])
def test_scales_of_groups(name: str) -> None:
    product = SMALL[name]
    made = emitted(product, MANY, "sm_90a")
    assert "moec::CodedWarpgroupTile<" in made.source
    for tokens, routing in [(0, "even"), (1, "even"), (90, "dropped"), (100, "one")]:
        given = inputs(product, tokens, routing, seed=tokens)
        wanted = swiglu(product, given) if product.products == 2 else sums(product, given)[0]
        assert error(made.run(given, seed=tokens), wanted) < TOLERANCE[product.type], (tokens, routing)


@pytest.mark.parametrize("rows", [32, 256])
def test_tiles_that_are_measured_to_be_the_fastest(rows: int) -> None:
    def kernel(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
        tile = CodedWarpgroupTile(1, rows, 4, 8, 2.5)
        body = coded.body(problem_of(op), tile, scope, "product", None, "f32")
        return (launch.alone(body, scope.name("product"), (0, None)),)

    product = replace(DOWN_CODES, inner=336, body=Product.body)
    given = inputs(product, 700, "few")
    assert error(Emitted(product, H100, kernel).run(given), sums(product, given)[0]) < TOLERANCE["bf16"]


def test_scales_in_bf16_and_what_an_epilogue_reads() -> None:
    for tokens, routing in [(60, "one"), (300, "even")]:
        given = inputs(DOWN_CODES, tokens, routing)
        found = emitted(DOWN_CODES, MANY, "sm_90a").run(given, seed=tokens)
        assert error(found, weighted(DOWN_CODES, given)) < TOLERANCE["bf16"]


@pytest.mark.parametrize(("format", "type_"), [("int8", "f16"), ("int4", "bf16"), ("fp8_e4m3", "bf16")])
def test_every_code_is_exact(format: str, type_: str) -> None:
    product = Product(inner=256, columns=10, experts=None, type=type_, format=format, out="f32")
    given = inputs(product, 256)
    given["x"] = torch.eye(256).to(given["x"].dtype)
    if format == "fp8_e4m3":
        every = torch.arange(256, dtype=torch.uint8)
        codes = torch.where((every & 0x7F) == 0x7F, 0, every).to(torch.uint8).view(torch.float8_e4m3fn)
    else:
        codes = torch.arange(FORMATS[format].lowest, FORMATS[format].highest + 1).repeat(256)[:256].to(torch.int8)
    bits = codes.view(torch.uint8)
    given["c0"] = torch.stack([bits.roll(n) for n in range(10)])[None].contiguous().view(codes.dtype)
    expected = given["c0"][0].float().T * given["s0"][0].unsqueeze(0)
    assert torch.equal(emitted(product, MANY, "sm_90a").run(given), expected)


def test_a_code_that_is_no_number_spoils_its_channel() -> None:
    product = Product(inner=64, columns=20, experts=2, format="fp8_e4m3", out="f32")
    given = inputs(product, 50, "even")
    given["c0"].view(torch.uint8)[:, 7, 11] = 0x7F
    found = emitted(product, MANY, "sm_90a").run(given)
    assert found[:, 7].isnan().all()
    assert np.isfinite(np.delete(found.numpy(), 7, 1)).all()


HEADER = "moec/matmul/coded_warpgroups.cuh"
FENCE = "        wgmma_fence(matrices[half]);\n"
FAULTS = {
    "registers of a matrix written while wgmma reads them": (
        ("if constexpr (!Tile::grouped) wgmma_wait<1>(sums);", "if constexpr (!Tile::grouped) wgmma_wait<2>(sums);"),
        "registers of a matrix were changed while wgmma worked on it",
    ),
    "no fence behind decoded registers": (
        (FENCE, ""),
        "no wgmma_fence since registers were last touched",
    ),
    "registers of a matrix written behind the fence": (
        (FENCE, FENCE + "        matrices[half][0][0] ^= 1;\n"),
        "registers of a matrix were written behind the wgmma_fence",
    ),
    "a stage given back while others of the warp read codes": (
        ("          sync_warp();\n          ring", "          ring"),
        "is read by thread",
    ),
    "columns in another order than results": (("line & 6) << 1", "line & 6) << 0"), None),
    "rows of another chunk": (("(half * 2 + n) * 32", "n * 32"), None),
    "the other half's codes": (("= place + half * 8;", "= place + 8 - half * 8;"), None),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    (right, wrong), found = FAULTS[name]
    product = Product(inner=464, columns=24, experts=3, per_token=2, format="int8", out="f32")
    given = inputs(product, 200)
    made = Emitted(product, H100, lambda op, scope, a: number(MANY, op, scope, a), Fault(HEADER, right, wrong))
    if found is None:  # no rule is broken, and the numbers are wrong
        assert error(made.run(given), sums(product, given)[0]) > 0.1
        return
    with pytest.raises(SimulatorError, match=found):
        made.run(given)


GROUPS = {
    "registers written while wgmma adds to a group of 64": (
        ("else if (!fresh) wgmma_wait<1>(some);", ""),
        "registers of a matrix were changed while wgmma worked on it",
    ),
    "sums scaled while wgmma adds to them": (
        ("            wgmma_wait<0>(some);\n            add", "            add"),
        "registers of a matrix were changed while wgmma worked on it",
    ),
    "sums of a group that begin with those of another": (("!fresh || n != 0", "true"), None),
    "the scales of another group": (("(stage, group, half, scale)", "(stage, group, 0, scale)"), None),
    "the scales of other columns": (("n / 2 % 2], sums[p][n])", "n % 2], sums[p][n])"), None),
}


@pytest.mark.parametrize("name", GROUPS)
def test_a_fault_with_scales_of_groups_is_found(name: str) -> None:
    (right, wrong), found = GROUPS[name]
    group = 64 if "64" in name else 32
    product = Product(inner=192, columns=24, experts=2, format="int4", group=group, out="f32")
    given = inputs(product, 100)
    given["s0"] *= torch.rand(given["s0"].shape, generator=torch.Generator().manual_seed(1)) * 4
    wide = given["s0"].double().repeat_interleave(group, -1)
    given["m0"] = given["c0"].double() * wide
    made = Emitted(product, H100, lambda op, scope, a: number(MANY, op, scope, a), Fault(HEADER, right, wrong))
    if found is None:
        assert error(made.run(given), sums(product, given)[0]) > 0.02
        return
    with pytest.raises(SimulatorError, match=found):
        made.run(given)


def test_one_and_two_weights_of_codes_take_wgmma() -> None:
    wide = Product(inner=2048, columns=768, experts=128, per_token=8, products=2, format="int8")
    tile = tiles.many_rows(problem(wide), H100)
    assert isinstance(tile, CodedWarpgroupTile)
    assert (tile.rows, tile.stages) == (128, 7)
    groups = replace(wide, format="int4", group=32)
    by_groups = tiles.many_rows(problem(groups), H100)
    assert isinstance(by_groups, CodedWarpgroupTile)
    assert (by_groups.rows, by_groups.scale_rows) == (64, 2)
    assert isinstance(tiles.many_rows(problem(replace(wide, products=3)), H100), WarpTile)
    assert isinstance(tiles.many_rows(problem(wide), ARCHITECTURES["sm_100a"]), WarpTile)


def test_many_rows_are_predicted_to_take_less_time_by_wgmma() -> None:
    for format in ("int8", "fp8_e4m3"):
        of = problem(Product(inner=2048, columns=768, experts=128, per_token=8, products=2, format=format))
        by_wgmma, by_warps = tiles.many_rows(of, H100), tiles.many_rows(of, ARCHITECTURES["sm_100a"])
        device = cost.DEVICES["sm_90a"]
        assert cost.seconds(of, by_wgmma, device, 2048) < 0.8 * cost.seconds(of, by_warps, device, 2048)
