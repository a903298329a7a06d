"""What the documents show must work: .moe files in the README, links between pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moec.cli.app import COMMANDS, app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text()
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MOE_BLOCKS = [text for language, text in FENCED.findall(README) if not language]
USE = """
layer UsesTheReadme(d = 64, ff = 32) {
  router noisy_pair(2) : f32
  experts routed[8] = gated(d, ff) : bf16
  tokens dropless
}
"""


def test_the_layer_of_the_readme_is_right(tmp_path: Path) -> None:
    file = tmp_path / "olmoe.moe"
    file.write_text(MOE_BLOCKS[0])
    result = CliRunner().invoke(app, ["check", str(file)])
    assert result.exit_code == 0, result.output


def test_the_definitions_of_the_readme_are_right(tmp_path: Path) -> None:
    file = tmp_path / "own.moe"
    file.write_text("edition 1\n" + MOE_BLOCKS[1] + USE)
    result = CliRunner().invoke(app, ["check", str(file)])
    assert result.exit_code == 0, result.output


def test_the_readme_names_every_command() -> None:
    assert [name for name in COMMANDS if f"$ moec {name} " not in README] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"`[^`\n]*`", "", FENCED.sub("", page.read_text()))
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose)
    assert [link for link in links if not (page.parent / link).exists()] == []
