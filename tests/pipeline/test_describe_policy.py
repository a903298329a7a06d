"""The policy of a layout on its way from the file through the IR into the manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from moec.artifact.container import read
from moec.artifact.policy import Policy
from moec.dialect import context
from moec.errors import DiagnosticError
from moec.frontend import load_layer
from moec.pipeline import Compilation, describe_policy
from moec.pipeline.ir_text import parse

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"d": 64, "ff": 64}


def compiled(path: Path, output: Path, **options: str) -> Policy | None:
    Compilation(path, defines=SMALL if path.suffix == ".moe" else {}, **options).write(output)
    return read(output).manifest.policy


@pytest.mark.parametrize("name", ["olmoe_serve", "switch_refit"])
def test_examples(name: str, tmp_path: Path) -> None:
    path = ROOT / "examples" / f"{name}.moe"
    layout = load_layer(path, defines=SMALL).layout
    assert layout is not None
    assert compiled(path, tmp_path / "a.so") == layout.policy
    (tmp_path / "a.mlir").write_text(Compilation(path, defines=SMALL).emit("kernels"))
    assert compiled(tmp_path / "a.mlir", tmp_path / "b.so") == layout.policy


def test_no_layout() -> None:
    compilation = Compilation(ROOT / "examples" / "olmoe.moe", defines=SMALL)
    assert "moe.policy" not in compilation.graph_text
    assert describe_policy.policy(compilation.graph) is None


def test_the_layout_is_asked_for(tmp_path: Path) -> None:
    text = (ROOT / "examples" / "switch_refit.moe").read_text()
    path = tmp_path / "two.moe"
    path.write_text(text + text[text.index("layout") :].replace("Refit", "Other").replace("2.5", "1.5"))
    with pytest.raises(DiagnosticError, match="2 layouts, and none is chosen"):
        Compilation(path, defines=SMALL).emit("graph")
    assert 'layout = "Other"' in Compilation(path, defines=SMALL, layout="Other").emit("graph")
    (tmp_path / "a.mlir").write_text(Compilation(path, defines=SMALL, layout="Other").emit("graph"))
    with pytest.raises(DiagnosticError, match="is IR, which holds the layout"):
        Compilation(tmp_path / "a.mlir", layout="Other").emit("graph")


def test_warnings_are_handed_on(tmp_path: Path) -> None:
    text = (ROOT / "examples" / "switch_refit.moe").read_text()
    path = tmp_path / "odd.moe"
    path.write_text(text.replace("overflow > 0.02", "imbalance > 9"))
    assert [one.code for one in Compilation(path, defines=SMALL).warnings] == ["W0010"]


@pytest.mark.parametrize("attribute", ["{}", '{layout = "A"}', '"text"', "dense<1> : tensor<1xi32>"])
def test_an_attribute_that_is_no_policy(attribute: str) -> None:
    module = parse(f"module attributes {{moe.policy = {attribute}}} {{\n}}", "a.mlir", context())
    with pytest.raises(DiagnosticError, match="the module's attribute is no policy"):
        describe_policy.policy(module)
