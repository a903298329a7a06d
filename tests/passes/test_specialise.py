"""Passes that specialise: what they make is what a file that says so would have been lowered to."""

from __future__ import annotations

import numpy as np
import pytest
from torch_mlir import ir

from moec import frontend, oracle, passes
from moec.backends.cpu import isa
from moec.backends.cpu.backend import kernels
from moec.diagnostics import Source
from moec.dialect import context
from moec.dialect.functions import has_wide_panels, layer_function
from moec.errors import DiagnosticError
from moec.passes.quantise_experts import parse_numbers
from tests.passes.test_meaning import random_arguments

LAYER = """edition 1
layer L(d = 16, ff = 8) {{
  router softmax_top(2)
  experts routed[6] = swiglu(d, ff) : f32
  {statements}
}}
"""


def lowered(*statements: str) -> ir.Module:
    text = LAYER.format(statements="\n  ".join(statements))
    return frontend.lower(frontend.load_layer_text(Source("layer.moe", text)), context())


def run(module: ir.Module, *specs: str) -> ir.Module:
    passes.run(module, passes.parse_pipeline(specs))
    return module


def same(one: ir.Module, other: ir.Module, tokens: int = 13) -> bool:
    arguments = random_arguments(one, tokens, np.random.default_rng(tokens))
    return np.allclose(oracle.run(one, arguments)["y"], oracle.run(other, arguments)["y"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("before", "experts", "after"),
    [
        ((), "1+4..5", ("quantize experts(routed, 1, 4..5) as int4(group = 8)",)),
        (("shared common[1] = swiglu(d, ff) : f32", "tokens capacity(0.5)"), "0", None),
        (
            ("quantize experts(routed, 2..3) as int8(group = 8)",),
            "1+5",
            ("quantize experts(routed, 2..3) as int8(group = 8)", "quantize experts(routed, 1, 5) as int4(group = 8)"),
        ),
        (("quantize experts(routed, 2) as int8(group = 8)",), "0..1+3..5", None),
    ],
)
def test_quantised_experts_are_those_of_a_file(
    before: tuple[str, ...], experts: str, after: tuple[str, ...] | None
) -> None:
    spec = f"quantise-experts{{experts={experts},format=int4,group=8}}"
    if after is None:
        numbers = ", ".join(experts.split("+"))
        after = (*before, f"quantize experts(routed, {numbers}) as int4(group = 8)")
    if experts == "0..1+3..5":  # a file leaves some experts as they are: this is checked against two formats
        half = run(lowered(*before), "quantise-experts{experts=0..1,format=int4,group=8}")
        whole = run(lowered(*before), spec)
        assert same(whole, run(half, "quantise-experts{experts=3..5,format=int4,group=8}"))
        return
    made = run(lowered(*before), spec)
    assert same(made, lowered(*after))
    assert not same(made, lowered(*before))


@pytest.mark.parametrize("tokens", [0, 1, 13])
def test_quantised_experts_go_through_the_pipeline(tokens: int) -> None:
    made = run(lowered("shared common[1] = swiglu(d, ff) : f32"), "quantise-experts{experts=1+4,format=int8}")
    arguments = random_arguments(made, tokens, np.random.default_rng(tokens))
    wanted = oracle.run(made, arguments)["y"]
    results = oracle.run(run(made, *passes.DEFAULT_PIPELINE), arguments)
    np.testing.assert_allclose(results["y"], wanted, rtol=1e-12, atol=1e-12)
    assert results["chosen"].sum() == 2 * tokens


@pytest.mark.parametrize("level", ["graph", "kernels"])
def test_a_capacity_is_refitted_at_both_levels(level: str) -> None:
    made = lowered("tokens capacity(0.5)")
    if level == "kernels":
        run(made, *passes.DEFAULT_PIPELINE)
    assert same(run(made, "refit-capacity{factor=1.25}"), lowered("tokens capacity(1.25)"))
    assert not same(made, lowered("tokens capacity(0.5)"))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("refit-capacity{factor=1.0}", "no capacity"),
        ("refit-capacity", "keeps nothing"),
        ("quantise-experts{experts=6}", "has experts 0..5"),
        ("quantise-experts{experts=1-2}", "are no numbers"),
        ("quantise-experts", "are no numbers"),
        ("quantise-experts{experts=1,format=int3}", "no format `int3`"),
        ("quantise-experts{experts=1,group=5}", "groups of 5 do not divide the 16 inputs of `routed.gate.weight`"),
        ("quantise-experts{experts=2}", "stored in a format of its own"),
    ],
)
def test_what_a_layer_does_not_allow_is_refused(spec: str, says: str) -> None:
    module = lowered("quantize experts(routed, 2) as int8()")
    with pytest.raises(DiagnosticError, match=says) as caught:
        run(module, spec)
    assert [one.code for one in caught.value.diagnostics] == ["E0611"]


def test_numbers() -> None:
    assert parse_numbers("9..11+3+7..7+3") == [3, 7, 9, 10, 11]


@pytest.mark.parametrize(
    ("most", "statement", "wide"),
    [
        (6, "", True),  # two rows an expert
        (7, "", False),
        (6, "quantize experts(routed, 2) as int8()", False),
        (3, "shared common[1] = swiglu(d, 4) : f32", False),  # the shared expert has three
        (2, "shared common[1] = swiglu(d, 4) : f32", True),
    ],
)
def test_few_rows_have_wide_panels(most: int, statement: str, wide: bool) -> None:
    made = run(lowered(statement), *passes.DEFAULT_PIPELINE, f"specialise-tokens{{least=1,most={most}}}")
    assert has_wide_panels(layer_function(made)) is wide
    layouts = {v.name: v.layout for v in kernels(made, isa.host_variants())[1]}
    plain = {
        v.name: v.layout for v in kernels(run(lowered(statement), *passes.DEFAULT_PIPELINE), isa.host_variants())[1]
    }
    assert {name for name in layouts if layouts[name] != plain[name]} == (set(layouts) if wide else set())


def test_no_tokens_are_no_range() -> None:
    with pytest.raises(DiagnosticError, match="no calls of 4 to 3 tokens"):
        run(lowered(), "specialise-tokens{least=4,most=3}")
