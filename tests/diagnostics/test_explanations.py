"""Every code that is used is explained, every explanation's example has its error, and its repair has none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from moec.diagnostics import Severity, codes, explanation
from moec.diagnostics.explanations import title
from moec.frontend import check_file

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("moec", "frontend", "passes", "backends", "runtime")
WITHOUT_EXAMPLE = {"E0104", "E0505"}
"""What it takes to reach a bound is too long to read; tests/frontend/test_limits.py reaches them."""


def used_codes() -> set[str]:
    files = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return {code for path in files for code in re.findall(r'"([EW]\d{4})"', path.read_text())}


def test_codes_and_explanations_are_the_same() -> None:
    assert used_codes() == set(codes())


def test_unknown_codes_have_no_explanation() -> None:
    assert explanation("E9999") is None
    assert explanation("../types") is None
    assert explanation("e0101") == explanation("E0101")


@dataclass(frozen=True)
class Example:
    kind: str
    defines: dict[str, str]
    layer: str | None
    text: str


def examples(code: str) -> list[Example]:
    found = []
    for head, text in re.findall(r"```moe (.*)\n((?s:.*?))```", explanation(code) or ""):
        kind, *options = head.split()
        pairs = dict(zip(options[::2], options[1::2], strict=True))
        defines = dict([pairs["-D"].split("=")]) if "-D" in pairs else {}
        found.append(Example(kind, defines, pairs.get("--layer"), text))
    return found


@pytest.mark.parametrize("code", codes())
def test_explanation(code: str, tmp_path: Path) -> None:
    assert title(code)
    assert (explanation(code) or "").startswith(f"# {code}: ")
    shown = examples(code)
    if code in WITHOUT_EXAMPLE or code[:3] in ("E06", "E07"):  # those are about IR and options, not about .moe files
        assert not shown
        return
    assert [one.kind for one in shown] == ["wrong", "right"]
    for one in shown:
        path = tmp_path / "layer.moe"
        path.write_text(one.text)
        found = check_file(path, one.layer, one.defines)
        if one.kind == "wrong":
            assert {d.code for d in found} == {code}
        else:
            assert not [d for d in found if d.severity is Severity.ERROR]
            assert not [d for d in found if d.code == code]


@pytest.mark.parametrize("code", codes())
def test_lines_are_short(code: str) -> None:
    assert max(map(len, (explanation(code) or "").splitlines())) <= 120
