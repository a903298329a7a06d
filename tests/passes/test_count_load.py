"""A layer's statistics are what its router chose, whatever the passes make of the rest."""

from __future__ import annotations

import numpy as np
import pytest
from torch_mlir import ir

from moec import frontend, oracle, passes
from moec.backends.cpu import isa
from moec.backends.cpu.backend import kernels
from moec.diagnostics import Source
from moec.dialect import context
from moec.passes import Pass
from moec.pipeline import describe
from tests.passes.test_meaning import random_arguments

D, FF, E = 16, 8, 6
LAYERS = {
    "plain": "router softmax_top(2)",
    "capacity": "router softmax_top(2)\n  tokens capacity(0.5)",
    "shared": "router softmax_top(2)\n  shared common[2] = swiglu(d, ff) : f32",
    "capacity_and_shared": "router softmax_top(2)\n  shared common[1] = swiglu(d, ff) : f32\n  tokens capacity(1.0)",
    "different_shared": "router softmax_top(2)\n  shared common[1] = swiglu(d, 5) : f32",
    "nulls": "router adamoe(2, nulls = 3)",
    "fewer": "router top_p(0.5, most = 4)",
    "formats": "router softmax_top(2)\n  quantize experts(routed, 1, 4..5) as int8()",
    "losses": "router softmax_top(2)\n  loss balance(0.01)",
}


def lowered(name: str) -> ir.Module:
    routed = f"experts routed[{E}] = swiglu(d, ff) : f32"
    text = f"edition 1\nlayer L(d = {D}, ff = {FF}) {{\n  {LAYERS[name]}\n  {routed}\n}}\n"
    return frontend.lower(frontend.load_layer_text(Source("layer.moe", text)), context())


@pytest.mark.parametrize("tokens", [0, 1, 13])
@pytest.mark.parametrize("name", LAYERS)
def test_counts_survive_all_passes(name: str, tokens: int) -> None:
    module = lowered(name)
    arguments = random_arguments(module, tokens, np.random.default_rng(tokens))
    seen = []

    def look(done: Pass, now: ir.Module) -> None:
        results = oracle.run(now, arguments)
        seen.append({"y": results["y"], **{s.name: results[s.name] for s in describe.statistics(now)}})

    passes.run(module, passes.parse_pipeline(passes.DEFAULT_PIPELINE), look)
    counted = seen[passes.DEFAULT_PIPELINE.index("count-load")]
    assert set(counted) == {"y", "chosen"} | ({"kept"} if "capacity" in LAYERS[name] else set())
    for results in seen[passes.DEFAULT_PIPELINE.index("count-load") :]:
        for result, value in counted.items():
            np.testing.assert_allclose(results[result], value, rtol=1e-12, err_msg=result)
    slots = 2 * tokens
    if name in ("plain", "capacity", "shared", "formats"):
        assert counted["chosen"].sum() == slots
    if "kept" in counted:
        limit = int(np.ceil((0.5 if name == "capacity" else 1.0) * slots / E))
        np.testing.assert_array_equal(counted["kept"], np.minimum(counted["chosen"], limit))


def test_shared_experts_that_join_do_not_route_twice() -> None:
    module = lowered("shared")
    passes.run(module, passes.parse_pipeline(passes.DEFAULT_PIPELINE))
    assert str(module).count('"moe.route"(') == 1


@pytest.mark.parametrize("name", ["plain", "shared", "formats"])
def test_regions_name_every_routed_expert(name: str) -> None:
    """Each variant has one place for every routed expert in each of the two matmuls of its dispatch."""
    module = lowered(name)
    passes.run(module, passes.parse_pipeline(passes.DEFAULT_PIPELINE))
    _, variants = kernels(module, isa.host_variants())
    for variant in variants:
        numbers = [number for region in variant.regions for number in region.experts]
        assert sorted(n for n in numbers if n >= 0) == sorted(2 * list(range(E))), variant.name
        assert numbers.count(-1) == (4 if name == "shared" else 0)
        assert len(variant.layout) == 16
    widths = {variant.lanes for variant in isa.host_variants()}  # f32 lies the same way wherever vectors are as wide
    assert len({variant.layout for variant in variants}) == len(widths)


def test_a_layout_depends_on_the_form_and_not_on_the_code() -> None:
    def layouts(name: str, direct: int = 4) -> list[str]:
        module = lowered(name)
        specs = [
            f"{s}{{direct-max-tokens={direct}}}" if s == "fuse-permutation" else s for s in passes.DEFAULT_PIPELINE
        ]
        passes.run(module, passes.parse_pipeline(specs))
        return [variant.layout for variant in kernels(module, isa.host_variants())[1]]

    assert layouts("plain") == layouts("plain", direct=0)
    assert layouts("plain") == layouts("capacity")
    assert layouts("plain") != layouts("shared")
    assert layouts("plain") != layouts("formats")


def test_without_a_number_of_experts_nothing_is_counted() -> None:
    module = lowered("plain")
    del module.operation.attributes["moe.routed"]
    report = passes.run(module, passes.parse_pipeline(["count-load"]))
    assert describe.statistics(module) == ()
    assert "not counted" in str(report.remarks.entries[0])
