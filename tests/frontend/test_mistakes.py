"""What people are told about typical mistakes, word by word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from moec.diagnostics import render_text
from moec.frontend import check_file

from .mistakes import MISTAKES


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake(
    name: str, tmp_path: Path, golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo.moe").write_text(MISTAKES[name])
    found = check_file("demo.moe")
    assert found
    golden(f"mistakes/{name}.txt", render_text(found) + "\n")
