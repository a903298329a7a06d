"""Loading: layers, parameters, imports, warnings, and what is imported on the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from moec.errors import DiagnosticError
from moec.frontend import check_file, load_layer
from moec.frontend.model import Layer

TWO = """edition 1
layer One(d = 8, ff = 4, scale = 1.0, renorm = true, dtype = f32) {
  router softmax_top(2, renorm)
  experts routed[4] = mlp_relu(d, ff) : dtype
  shared extra = scale * linear(x, d) : dtype
}
layer Two(d = 8) {
  router switch
  experts routed[2] = mlp_relu(d, 4)
}
"""


def write(folder: Path, text: str, name: str = "main.moe") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def codes(caught: pytest.ExceptionInfo[DiagnosticError]) -> list[str]:
    return [one.code for one in caught.value.diagnostics]


def shape(layer: Layer, name: str) -> tuple[int | None, ...]:
    return next(one.shape for one in layer.parameters if one.name == name)


def test_defines_of_every_kind(tmp_path: Path) -> None:
    path = write(tmp_path, TWO)
    defines = {"ff": "6", "d": 16, "scale": "2", "renorm": "false", "dtype": "bf16"}
    layer = load_layer(path, "One", defines)
    assert layer.options == {"d": 16, "ff": 6, "scale": 2.0, "renorm": False, "dtype": "bf16"}
    assert shape(layer, "routed.up.weight") == (4, 6, 16)
    assert shape(layer, "extra.linear_0.weight") == (1, 16, 16)
    assert str(layer.dtype) == "bf16"


@pytest.mark.parametrize(
    "given", ["6.5", "true", "bf16", "x", "", "1e", "9" * 50, "0x10", "1_000", "nan", "9223372036854775808", "-3", "0"]
)
def test_wrong_defines(tmp_path: Path, given: str) -> None:
    with pytest.raises(DiagnosticError) as caught:
        load_layer(write(tmp_path, TWO), "One", {"ff": given})
    assert set(codes(caught)) <= {"E0503", "E0502"}


def test_a_define_of_nothing_is_answered(tmp_path: Path) -> None:
    with pytest.raises(DiagnosticError, match="did you mean `renorm`"):
        load_layer(write(tmp_path, TWO), "One", {"renom": True})


def test_choosing_a_layer(tmp_path: Path) -> None:
    path = write(tmp_path, TWO)
    assert load_layer(path, "Two").name == "Two"
    with pytest.raises(DiagnosticError, match="`One`, `Two`"):
        load_layer(path)
    with pytest.raises(DiagnosticError, match="did you mean `Two`"):
        load_layer(path, "Tow")
    assert check_file(path) == []


def test_files_are_relative_to_the_importing_one(tmp_path: Path) -> None:
    write(tmp_path, 'edition 1\nimport deep from "b/c.moe"\nexpert mid(d) = deep(d)\n', "a/mid.moe")
    write(tmp_path, "edition 1\nexpert deep(d) = linear(x, d)\n", "a/b/c.moe")
    path = write(
        tmp_path,
        'edition 1\nimport mid from "a/mid.moe"\nlayer L(d = 4) {\n router switch()\n experts r[2] = mid(d)\n}\n',
    )
    layer = load_layer(path)
    assert [one.name for one in layer.parameters] == ["router.logits.weight", "r.linear_0.weight"]
    names = [source.name for source in layer.sources]
    assert names[0] == str(path)
    assert {Path(name).name for name in names} >= {"main.moe", "mid.moe", "c.moe", "routers.moe"}


def test_ring_of_imports(tmp_path: Path) -> None:
    write(tmp_path, 'edition 1\nimport a from "main.moe"\nexpert b(d) = a(d)\n', "b.moe")
    path = write(tmp_path, 'edition 1\nimport b from "b.moe"\nexpert a(d) = b(d)\n')
    assert "E0109" in [one.code for one in check_file(path)]


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "nothing.moe", "notes.txt", "std/none.moe", "http://a/b.moe", "../x"]
)
def test_what_cannot_be_imported(tmp_path: Path, target: str) -> None:
    path = write(tmp_path, f'edition 1\nimport a from "{target}"\n')
    assert [one.code for one in check_file(path)] == ["E0108"]


def test_own_definitions_come_before_the_prelude(tmp_path: Path) -> None:
    text = (
        "edition 1\nexpert swiglu(d) = linear(x, d)\nlayer L(d = 4) {\n router switch()\n experts r[2] = swiglu(d)\n}\n"
    )
    assert len(load_layer(write(tmp_path, text)).parameters) == 2


def test_names_of_parameters(tmp_path: Path) -> None:
    text = """edition 1
expert inner(d) {
  h = linear(x, 3, bias = true)
  y = linear(relu(linear(h, 2)), d)
}
expert outer(d) {
  g = inner(d)
  s = param(d)
  y = s * g + inner(d) + linear(x, d) + linear(x, d)
}
layer L(d = 4) {
  router switch()
  experts r[2] = outer(d)
}
"""
    names = [one.name for one in load_layer(write(tmp_path, text)).parameters]
    inner = ["h.weight", "h.bias", "linear_0.weight", "y.weight"]
    assert names == [
        "router.logits.weight",
        *(f"r.g.{name}" for name in inner),
        "r.s",
        *(f"r.inner_0.{name}" for name in inner),
        "r.linear_0.weight",
        "r.linear_1.weight",
    ]


def test_static_choice_makes_only_what_it_needs(tmp_path: Path) -> None:
    text = """edition 1
expert maybe(d, wide = false) = wide ? linear(linear(x, 100), d) : linear(x, d)
layer L(d = 4, wide = false) {
  router switch()
  experts r[2] = maybe(d, wide)
}
"""
    path = write(tmp_path, text)
    assert len(load_layer(path).parameters) == 2
    assert len(load_layer(path, defines={"wide": "true"}).parameters) == 3


def test_warnings_are_kept_on_the_layer(tmp_path: Path) -> None:
    text = TWO.replace("layer Two(d = 8)", "layer Two(d = 8, idle = 3)")
    layer = load_layer(write(tmp_path, text), "Two")
    assert [one.code for one in layer.warnings] == ["W0002"]


def test_missing_file() -> None:
    with pytest.raises(DiagnosticError, match="cannot read"):
        load_layer("/nowhere/at all.moe")


def test_importing_the_frontend_imports_no_mlir() -> None:
    program = (
        "import sys, moec.frontend, moec.diagnostics\n"
        f"moec.frontend.load_layer({str(Path(__file__).parents[2] / 'examples' / 'olmoe.moe')!r})\n"
        "assert not any(name.split('.')[0] in ('torch_mlir', 'torch', 'numpy') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
