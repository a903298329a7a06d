"""The source of matmuls, as it was when it was last looked at."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from moec.backends.cuda.arch import ARCHITECTURES
from moec.backends.cuda.matmul import emit
from tests.backends.cuda.products import SWIGLU, Emitted, Product
from tests.backends.cuda.test_codes import SMALL
from tests.backends.cuda.test_codes import UP as CODES
from tests.backends.cuda.test_products import DOWN

PRODUCTS = {
    "up": Product(inner=136, columns=72, experts=5, per_token=2, products=2, body=SWIGLU),
    "down": DOWN,
    "codes": CODES,
    "codes_fp8": Product(inner=64, columns=16, experts=3, type="f16", format="fp8_e4m3", scale="bf16"),
    "groups": SMALL["int4_32"],
    "whole": Product(inner=128, columns=16, experts=3, products=2, format="int8", body=SWIGLU, rounded=True),
    "whole_groups": Product(inner=96, columns=16, experts=3, format="int4", group=32, scale="bf16", rounded=True),
    "logits": Product(inner=64, columns=8, experts=None, type="f32", lhs_type="bf16", out="f32"),
}


@pytest.mark.parametrize(
    ("name", "arch"),
    [
        ("up", "sm_90a"),
        ("down", "sm_80"),
        ("codes", "sm_80"),
        ("codes_fp8", "sm_80"),
        ("codes_fp8", "sm_90a"),
        ("groups", "sm_80"),
        ("groups", "sm_90a"),
        ("whole", "sm_90a"),
        ("whole_groups", "sm_80"),
        ("logits", "sm_80"),
    ],
)
def test_source(name: str, arch: str, golden: Callable[[str, str], None]) -> None:
    emitted = Emitted(PRODUCTS[name], ARCHITECTURES[arch], emit.matmul)
    launches = "".join(
        f"// {one.name}: {one.threads} threads, {one.shared_bytes} bytes, {one.grid}, tokens {one.tokens}\n"
        for one in emitted.kernels
    )
    golden(f"{name}_{arch}.cu", launches + emitted.source)


def test_what_is_rounded_to_16_bits_is_approximated() -> None:
    exact = Product(inner=64, columns=8, experts=2, products=2, out="f32", body=SWIGLU)
    assert "expf(" in Emitted(exact, ARCHITECTURES["sm_80"], emit.matmul).source
    assert "approximate_exp" in Emitted(PRODUCTS["up"], ARCHITECTURES["sm_80"], emit.matmul).source
