"""Products with quantised weights on the simulator, against float64 of what codes and scales stand for."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch_mlir import ir

from moec.backends.base import Unsupported
from moec.backends.cuda.arch import ARCHITECTURES, Arch
from moec.backends.cuda.kernel import Kernel, Scope
from moec.backends.cuda.matmul import divided, emit, tiles
from moec.backends.cuda.matmul.problem import problem as problem_of
from moec.backends.cuda.matmul.tiles import Decode
from moec.formats import FORMATS
from moec.runtime.cuda.packed import packed_codes, unpacked_codes
from tests.backends.cuda.products import SWIGLU, Emitted, Product, error, inputs, sums
from tests.backends.cuda.simulator import Fault
from tests.backends.cuda.test_products import CALLS, DOWN, TOLERANCE, WEIGHTED, swiglu, weighted

pytestmark = pytest.mark.long

UP = Product(inner=144, columns=72, experts=5, per_token=2, products=2, format="int8", body=SWIGLU)
FLOATS = replace(UP, format="fp8_e4m3")
DOWN_CODES = replace(DOWN, inner=80, format="int8", scale="bf16", body=WEIGHTED)
FEWER = replace(UP, experts=3)
SMALL = {
    "int4": replace(FEWER, inner=136, format="int4"),
    "ternary": replace(FEWER, inner=200, format="ternary"),
    "int4_32": replace(FEWER, inner=224, columns=75, format="int4", group=32, scale="bf16"),
    "int4_64_f16": replace(FEWER, inner=192, format="int4", group=64, type="f16", products=1, body=Product.body),
    "int4_96": replace(FEWER, inner=192, format="int4", group=96),
    "ternary_128": replace(FEWER, inner=256, format="ternary", group=128),
    "int8_32": replace(FEWER, inner=96, group=32),
    "fp8_32": replace(FEWER, inner=96, format="fp8_e4m3", group=32, scale="bf16"),
}
"""Small codes, which are packed, and those with scales of groups."""
FEW, MANY = "_few", ""


def number(which: str | None, op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    made = emit.matmul(op, scope, arch)
    if which is None:
        return made
    found = [one for one in made if one.name.endswith(which)] if which else [made[-1]]
    return (replace(found[0], tokens=(0, None)),)


@cache
def emitted(product: Product, which: str | None, arch: str = "sm_80") -> Emitted:
    return Emitted(product, ARCHITECTURES[arch], lambda op, scope, a: number(which, op, scope, a))


@pytest.mark.parametrize("which", [FEW, MANY])
@pytest.mark.parametrize("product", [UP, FLOATS], ids=["int8", "fp8"])
def test_gathered_rows_and_two_weights(product: Product, which: str) -> None:
    for tokens, routing in CALLS:
        given = inputs(product, tokens, routing, seed=tokens)
        found = emitted(product, which).run(given, seed=tokens)
        assert error(found, swiglu(product, given)) < TOLERANCE["bf16"], (tokens, routing)


@pytest.mark.parametrize("which", [FEW, MANY])
@pytest.mark.parametrize("name", SMALL)
def test_packed_codes_and_scales_of_groups(name: str, which: str) -> None:
    product = SMALL[name]
    for tokens, routing in [(0, "even"), (1, "even"), (19, "dropped"), (70, "one")]:
        given = inputs(product, tokens, routing, seed=tokens)
        wanted = swiglu(product, given) if product.products == 2 else sums(product, given)[0]
        assert error(emitted(product, which).run(given, seed=tokens), wanted) < TOLERANCE[product.type], tokens


@pytest.mark.parametrize("name", ["int4_32", "ternary", "int8_32"])
def test_blocks_that_share_an_inner_dimension_of_codes(name: str) -> None:
    product = replace(SMALL[name], inner=192)

    def share(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
        of = problem_of(op)
        return divided.kernels(of, Decode(tiles.few_rows(of), 3), scope, None, "f32", (0, tiles.DECODE + 1), "product")

    made = Emitted(product, ARCHITECTURES["sm_80"], share)
    for tokens, routing in [(0, "even"), (3, "even"), (16, "one"), (9, "dropped")]:
        given = inputs(product, tokens, routing, seed=tokens)
        found = made.run(given)
        assert error(found, swiglu(product, given)) < TOLERANCE["bf16"]
        assert torch.equal(made.run(given, 7), found)


@pytest.mark.parametrize("format", ["int4", "ternary"])
@pytest.mark.parametrize("type_", ["bf16", "f16"])
def test_every_small_code_is_exact(format: str, type_: str) -> None:
    product = Product(inner=72, columns=24, experts=None, type=type_, format=format, out="f32")
    given = inputs(product, 72)
    given["x"] = torch.eye(72).to(given["x"].dtype)
    codes = torch.arange(FORMATS[format].lowest, FORMATS[format].highest + 1, dtype=torch.int8)
    given["c0"] = torch.stack([codes.repeat(72).roll(n)[:72] for n in range(24)])[None].contiguous()
    assert torch.equal(unpacked_codes(packed_codes(given["c0"], format), format, 72), given["c0"])
    expected = given["c0"][0].float().T * given["s0"][0].unsqueeze(0)
    assert torch.equal(emitted(product, None).run(given), expected)


def test_a_group_that_is_not_finite_spoils_its_channel() -> None:
    product = Product(inner=160, columns=16, experts=2, format="int4", out="f32", group=32)
    given = inputs(product, 20)
    given["s0"][:, 5, 4] = float("nan")
    found = emitted(product, None).run(given)
    assert found[:, 5].isnan().all()
    assert np.isfinite(np.delete(found.numpy(), 5, 1)).all()


@pytest.mark.parametrize("which", [FEW, MANY])
def test_scales_in_bf16_and_what_an_epilogue_reads(which: str) -> None:
    for tokens, routing in [(60, "one"), (130, "even")]:
        given = inputs(DOWN_CODES, tokens, routing)
        assert error(emitted(DOWN_CODES, which).run(given), weighted(DOWN_CODES, given)) < TOLERANCE["bf16"]


@pytest.mark.parametrize("type_", ["bf16", "f16"])
def test_every_code_is_exact(type_: str) -> None:
    """Rows with a single 1 select codes, -128 among them; results are their exact products with scales."""
    product = Product(inner=256, columns=8, experts=None, type=type_, format="int8", out="f32")
    given = inputs(product, 256)
    given["x"] = torch.eye(256).to(given["x"].dtype)
    codes = torch.arange(-128, 128).repeat(8, 1)
    given["c0"] = torch.stack([row.roll(n) for n, row in enumerate(codes)]).to(torch.int8)[None].contiguous()
    expected = given["c0"][0].float().T * given["s0"][0].unsqueeze(0)
    assert torch.equal(emitted(product, None).run(given), expected)


@pytest.mark.parametrize("type_", ["bf16", "f16"])
def test_every_code_of_fp8_is_exact(type_: str) -> None:
    """A code that is NaN spoils its channel, in all rows, and no other."""
    product = Product(inner=256, columns=8, experts=None, type=type_, format="fp8_e4m3", out="f32")
    given = inputs(product, 256)
    given["x"] = torch.eye(256).to(given["x"].dtype)
    every = torch.arange(256, dtype=torch.uint8)
    finite = torch.where((every & 0x7F) == 0x7F, 0, every).to(torch.uint8)
    codes = torch.stack([(finite if n else every).roll(n) for n in range(8)]).view(torch.float8_e4m3fn)
    given["c0"] = codes[None].contiguous()
    expected = codes[1:].float().T * given["s0"][0, 1:].unsqueeze(0)
    found = emitted(product, None).run(given)
    assert torch.equal(found[:, 1:], expected)
    assert found[:, 0].isnan().all()


def test_dense_products_of_every_size_find_a_kernel() -> None:
    product = Product(inner=64, columns=33, experts=None, format="ternary", out="f32")
    for tokens in (0, 1, 17, 64, 200):
        given = inputs(product, tokens)
        assert error(emitted(product, None).run(given), sums(product, given)[0]) < TOLERANCE["f32"]


def test_a_channel_of_zeros_and_one_that_is_not_finite() -> None:
    product = Product(inner=64, columns=16, experts=2, format="int8", out="f32")
    given = inputs(product, 20)
    given["c0"][:, 3] = 0
    given["s0"][:, 3] = 0.0
    given["s0"][:, 5] = float("nan")
    found = emitted(product, None).run(given)
    assert (found[:, 3] == 0).all()
    assert found[:, 5].isnan().all()
    assert np.isfinite(found[:, 6:].numpy()).all()


@pytest.mark.parametrize(
    ("header", "right", "wrong"),
    [
        ("warps", "(sums[p][i][j][n]) * scale;", "(sums[p][i][j][n]) * (n < 2 ? scale : 1.0f);"),
        ("codes", "words[k], b);", "words[k ^ 1], b);"),
        ("codes", "column = part.column + line;", "column = part.column + (line ^ 1);"),
    ],
)
def test_faults_are_found(header: str, right: str, wrong: str) -> None:
    product = Product(inner=64, columns=16, experts=2, format="int8")
    fault = Fault(f"moec/matmul/{header}.cuh", right, wrong)
    given = inputs(product, 40)
    faulty = Emitted(product, ARCHITECTURES["sm_80"], lambda op, scope, a: number(FEW, op, scope, a), fault)
    assert error(faulty.run(given), sums(product, given)[0]) > 0.1


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("Tile::chunk) / Tile::group;", "Tile::chunk) / Tile::group + 1;"),
        ("+ k / Tile::chunk) * Tile::width", "+ 0) * Tile::width"),
        ("const int pair = k / 2 % halves * 4 + k % 2 * 2 + i;", "const int pair = k / 2 % halves * 4 + i;"),
        ("k32 * 4 + (lane_index() & 3)", "k32 * 4"),
    ],
)
def test_faults_of_packed_codes_are_found(right: str, wrong: str) -> None:
    product = Product(inner=64, columns=16, experts=2, format="int4", group=32)
    given = inputs(product, 40)
    fault = Fault("moec/matmul/codes.cuh", right, wrong)
    faulty = Emitted(product, ARCHITECTURES["sm_80"], lambda op, scope, a: number(FEW, op, scope, a), fault)
    assert error(faulty.run(given), sums(product, given)[0]) > 0.1


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"inner": 72}, "rows of 72 elements beside codes: no multiple of 16"),
        ({"inner": 132, "format": "int4"}, "rows of 132 elements beside codes: no multiple of 8"),
        ({"group": 16}, "a scale for 16 inputs"),
        ({"group": 48}, "a scale for 48 inputs"),
    ],
)
def test_what_there_is_no_kernel_for_is_refused(changed: dict[str, object], why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        emitted(replace(UP, **changed), None)


F32 = {
    "int8": replace(UP, inner=61, type="f32"),
    "fp8": replace(FEWER, inner=64, type="f32", format="fp8_e4m3", group=32, scale="bf16"),
    "int4": replace(FEWER, inner=96, columns=75, type="f32", format="int4", group=32, products=1, body=Product.body),
    "ternary": replace(DOWN_CODES, inner=90, type="f32", format="ternary", body=Product.body),
}


@pytest.mark.parametrize("name", F32)
def test_rows_in_f32(name: str) -> None:
    product = F32[name]
    for tokens, routing in [(0, "even"), (1, "even"), (19, "dropped"), (70, "one")]:
        given = inputs(product, tokens, routing, seed=tokens)
        wanted = swiglu(product, given) if product.products == 2 else sums(product, given)[0]
        assert error(emitted(product, None).run(given, seed=tokens), wanted) < TOLERANCE["f32"], tokens


@pytest.mark.parametrize("format", ["int8", "int4", "ternary", "fp8_e4m3"])
def test_every_code_is_exact_in_f32(format: str) -> None:
    inner = 256 if FORMATS[format].bits == 8 else 72
    product = Product(inner=inner, columns=2, experts=None, type="f32", format=format)
    given = inputs(product, inner)
    given["x"] = torch.eye(inner)
    if format == "fp8_e4m3":
        every = torch.arange(256, dtype=torch.uint8)
        codes = torch.where((every & 0x7F) == 0x7F, 0, every).to(torch.uint8).view(torch.float8_e4m3fn)
    else:
        codes = torch.arange(FORMATS[format].lowest, FORMATS[format].highest + 1).repeat(72)[:inner].to(torch.int8)
    bits = codes.view(torch.uint8)
    given["c0"] = torch.stack([bits.roll(n) for n in range(2)])[None].contiguous().view(codes.dtype)
    expected = given["c0"][0].float().T * given["s0"][0].unsqueeze(0)
    assert torch.equal(emitted(product, None).run(given), expected)
