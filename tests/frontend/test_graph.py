"""What lowering makes: golden IR of the examples, and that everything in the library verifies in both dtypes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from moec.diagnostics import Collector, Source
from moec.dialect import context
from moec.frontend import load_layer, load_layer_text, lower
from moec.frontend.modules import Modules

ROOT = Path(__file__).resolve().parents[2]
LAYOUT = re.compile(r"^layout (\w+)", re.MULTILINE)


def examples() -> list[tuple[str, str | None]]:
    """Every example, with each of its layouts where it has several."""
    found: list[tuple[str, str | None]] = []
    for path in sorted((ROOT / "examples").glob("*.moe")):
        layouts = LAYOUT.findall(path.read_text())
        found += [(path.stem, layout) for layout in (layouts if len(layouts) > 1 else [None])]
    return found


ARGUMENTS = {
    "softmax_top": "2", "sigmoid_top": "2", "switch": "", "gshard_top2": "", "mixtral": "2", "qwen_moe": "2",
    "deepseek_moe": "2, 1.5", "deepseek_v3": "2, 4, 2", "moge": "4, 2", "top_p": "0.4, 3", "adamoe": "3, 2",
    "sigma_moe": "2", "hash": "50, 2", "task_moe": "2, 3",
}  # fmt: skip


def library(kind: str) -> list[str]:
    module = Modules(Collector()).text(Source("main", "edition 1\n"), Path())
    assert module is not None
    return [name for name, known in module.scope.items() if known.definition.kind == kind]


@pytest.mark.parametrize(("name", "layout"), examples())
def test_example(name: str, layout: str | None, golden: Callable[[str, str], None]) -> None:
    layer = load_layer(ROOT / "examples" / f"{name}.moe", layout=layout)
    assert not layer.warnings
    golden(f"graph/{name}{f'_{layout.lower()}' if layout else ''}.mlir", str(lower(layer, context())))


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("name", library("router"))
def test_library_router(name: str, dtype: str) -> None:
    text = f"""edition 1
layer Demo(d = 12, dtype = {dtype}) {{
  router {name}({ARGUMENTS[name]}) : {dtype}
  experts routed[8] = swiglu(d, 6) : dtype
  tokens capacity(1.25, order = score)
}}"""
    layer = load_layer_text(Source("demo.moe", text))
    module = lower(layer, context())
    assert module.operation.verify()


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("name", library("expert"))
def test_library_expert(name: str, dtype: str) -> None:
    text = f"""edition 1
layer Demo(d = 12, dtype = {dtype}) {{
  router softmax_top(2)
  experts routed[8] = {name}(d, 6) : dtype
  shared common[3] = {name}(d, 5) : dtype
}}"""
    assert lower(load_layer_text(Source("demo.moe", text)), context()).operation.verify()


def test_operations_carry_their_places() -> None:
    text = str(lower(load_layer(ROOT / "examples" / "olmoe.moe"), context()).operation.get_asm(enable_debug_info=True))
    assert 'loc("std/experts.moe":' in text
    assert f'loc("{ROOT}/examples/olmoe.moe":' in text


def test_arguments_are_in_the_order_of_the_layer() -> None:
    body = " router hash(9, 2)\n experts r[3] = mlp_relu(d, 5, true)"
    layer = load_layer_text(Source("demo.moe", f"edition 1\nlayer Demo(d = 4) {{\n{body}\n}}"))
    names = [one.name for one in (*layer.inputs, *layer.parameters)]
    assert names == ["x", "token", "router.table", "r.up.weight", "r.up.bias", "r.down.weight", "r.down.bias"]
    assert [one.role for one in layer.parameters[:2]] == ["buffer", "parameter"]
    shapes = {one.name: one.shape for one in (*layer.inputs, *layer.parameters)}
    assert shapes["token"] == (None,)
    assert shapes["router.table"] == (9, 2)
    assert shapes["r.up.bias"] == (3, 5)
    text = str(lower(layer, context()))
    places = [text.index(f'moe.name = "{name}"') for name in names]
    assert places == sorted(places)
