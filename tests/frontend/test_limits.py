"""Files that are too large, too deep, or grow too much end in a message, soon."""

from __future__ import annotations

from pathlib import Path

import pytest

from moec.diagnostics import Source
from moec.errors import DiagnosticError
from moec.frontend import check_file, parse
from moec.frontend.parser import LARGEST

LAYER = "layer L(d = 4) {\n  router switch()\n  experts r[2] = top(d)\n}\n"


def found(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "main.moe"
    path.write_text(text)
    return [one.code for one in check_file(path)]


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000 + "x" + ")" * 5000,
        "[" * 5000,
        "x" + "[0]" * 500,
        "-" * 3000 + "x",
        "not " * 3000 + "x",
        "x" + " + x" * 3000,
        "x ? " * 300 + "x" + " : x" * 300,
        "f(" * 60 + "-" * 60 + "x" + ")" * 60,
    ],
)
def test_deep_expressions(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, f"edition 1\nexpert top(d) = {text}\n{LAYER}") in (["E0104"], ["E0103"])


def test_deep_blocks(tmp_path: Path) -> None:
    assert found(tmp_path, "edition 1\n" + "layer L(d = 4) {\n" * 2000 + "}\n" * 2000) == ["E0104"]


def test_large_file() -> None:
    with pytest.raises(DiagnosticError, match="more than the"):
        parse(Source("a.moe", "#" * (LARGEST + 1)))


@pytest.mark.parametrize("first", ["linear(x, d)", "silu(x)"])
def test_doubling_definitions(first: str, tmp_path: Path) -> None:
    """Also where all uses give the same operation."""
    steps = [f"expert e0(d) = {first}"] + [f"expert e{i}(d) = e{i - 1}(d) + e{i - 1}(d)" for i in range(1, 22)]
    text = "edition 1\n" + "\n".join(steps) + "\nexpert top(d) = e21(d)\n" + LAYER
    assert found(tmp_path, text) == ["E0505"]


def test_long_chain_of_definitions(tmp_path: Path) -> None:
    steps = ["expert e0(d) = linear(x, d)"] + [f"expert e{i}(d) = -(-(e{i - 1}(d)))" for i in range(1, 200)]
    text = "edition 1\n" + "\n".join(steps) + "\nexpert top(d) = e199(d)\n" + LAYER
    assert "E0505" in found(tmp_path, text)


def test_deep_expressions_within_deep_definitions(tmp_path: Path) -> None:
    steps = ["expert e0(d) = linear(x, d)"]
    steps += [f"expert e{i}(d) = {'-(' * 40}e{i - 1}(d){')' * 40}" for i in range(1, 20)]
    text = "edition 1\n" + "\n".join(steps) + "\nexpert top(d) = e19(d)\n" + LAYER
    assert "E0505" in found(tmp_path, text)


def test_wide_numbers(tmp_path: Path) -> None:
    text = "edition 1\nexpert top(d) = linear(x, d * 99999999999 * 99999999999)\n" + LAYER
    assert found(tmp_path, text) == ["E0502"]
    text = "edition 1\nexpert top(d) = linear(linear(x, 2000000000), d * 500000000)\n" + LAYER
    assert "E0503" in found(tmp_path, text)


def test_ring_of_definitions(tmp_path: Path) -> None:
    text = "edition 1\nexpert top(d) = other(d)\nexpert other(d) = top(d)\n" + LAYER
    assert found(tmp_path, text) == ["E0208"]


def test_many_files(tmp_path: Path) -> None:
    for i in range(80):
        body = f'import e{i + 1} from "f{i + 1}.moe"\n' if i < 79 else ""
        (tmp_path / f"f{i}.moe").write_text(f"edition 1\n{body}expert e{i}(d) = linear(x, d)\n")
    assert found(tmp_path, 'edition 1\nimport e0 from "f0.moe"\nexpert top(d) = e0(d)\n' + LAYER) == ["E0104"]
