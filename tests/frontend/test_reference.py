"""The reference speaks the truth: its examples check, and its tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from moec.diagnostics import Collector, Source
from moec.frontend import check_file
from moec.frontend.modules import Modules
from moec.frontend.operations import OPERATIONS

REFERENCE = (Path(__file__).resolve().parents[2] / "docs" / "language.md").read_text()
EXAMPLES = re.findall(r"```moe\n((?s:.*?))```", REFERENCE)


@pytest.mark.parametrize("text", [text for text in EXAMPLES if "parts/special.moe" not in text])
def test_example(text: str, tmp_path: Path) -> None:
    path = tmp_path / "example.moe"
    path.write_text(text)
    assert check_file(path) == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_is_described(name: str) -> None:
    assert re.search(rf"`{name}[(`]", REFERENCE)


def test_library_is_described() -> None:
    modules = Modules(Collector())
    module = modules.text(Source("main", "edition 1\n"), Path())
    assert module is not None
    for name, known in module.scope.items():
        parameters = ", ".join(
            p.name.text + (f" = {p.default.span.text}" if p.default else "") for p in known.definition.parameters
        )
        assert f"`{name}({parameters})`" in REFERENCE
