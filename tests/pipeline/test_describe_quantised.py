"""What a manifest says of quantised experts is read off the IR, at graph and at kernel level alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from moec import frontend, passes
from moec.artifact.quantised import Quantised, Stored
from moec.diagnostics import Source
from moec.dialect import context
from moec.dialect.functions import layer_function
from moec.pipeline.describe_quantised import quantised

LINEARS = ("gate.weight", "up.weight", "down.weight")


def described(*statements: str, routed: str) -> list[Quantised | None]:
    lines = "\n".join(f"  {one}" for one in statements)
    text = f"""edition 1
layer Demo(d = 24, ff = 12) {{
  router softmax_top(2)
  experts routed[6] = swiglu(d, ff) : {routed}
{lines}
}}"""
    module = frontend.lower(frontend.load_layer_text(Source("demo.moe", text), Path()), context())
    graph = quantised(layer_function(module))
    passes.run(module, passes.parse_pipeline(passes.DEFAULT_PIPELINE))
    return [graph, quantised(layer_function(module))]


def stored(
    group: str, format: str, size: int | None, scale: str, experts: tuple[int, ...] | None = None, given: bool = False
) -> Stored:
    weights = tuple(f"{group}.{name}" for name in LINEARS)
    scales = tuple(name.replace("weight", "scale") for name in weights) if given else ()
    return Stored(weights, scales, experts, format, size, scale)


def same(one: Quantised | None, other: Quantised) -> bool:
    """Equal but for the order; shared experts that joined the routed ones stand with them."""

    def flat(quantised: Quantised) -> set[tuple[object, ...]]:
        rows = set()
        for s in quantised.stored:
            scales = s.scales or ("",) * len(s.weights)
            how = (s.experts, s.format, s.group, s.scale)
            rows |= {(name, scale, *how) for name, scale in zip(s.weights, scales, strict=True)}
        return rows

    return one is not None and one.rows == other.rows and flat(one) == flat(other)


def test_without_formats_there_is_nothing_to_say() -> None:
    assert described(routed="bf16") == [None, None]


@pytest.mark.parametrize("given", [False, True])
def test_shared_experts_of_the_same_format(given: bool) -> None:
    format = f"int4(group = 6, prequantized = {str(given).lower()})"
    want = Quantised(
        "int8",
        (stored("routed", "int4", 6, "bf16", given=given), stored("common", "int4", 6, "bf16", given=given)),
    )
    found = described(f"shared common[2] = swiglu(d, ff) : {format}", "approx rows as int8", routed=format)
    assert all(same(one, want) for one in found)


def test_formats_of_some_experts() -> None:
    want = Quantised(
        "float",
        (
            stored("routed", "int8", None, "f32", (1, 2)),
            stored("routed", "ternary", None, "bf16", (0, 4, 5)),
        ),
    )
    statements = (
        "quantize experts(routed, 1..2) as int8",
        "quantize experts(routed, 4..5, 0) as ternary(scale = bf16)",
    )
    assert all(same(one, want) for one in described(*statements, routed="bf16"))
