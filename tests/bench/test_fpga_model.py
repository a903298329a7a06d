"""The tables of docs/fpga.md are what the model says today."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.fpga_model import PUBLISHED, alternatives, beside_published, dense, design, experts
from moec.fixed.spec import Weights

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fpga.md"


def test_the_page_shows_what_the_model_says() -> None:
    page = PAGE.read_text()
    for line in (*list(beside_published())[2:], *list(alternatives())[2:]):
        assert " ".join(line.split()) in page, "run python -m bench.fpga_model, and put its tables into docs/fpga.md"


def test_the_model_is_near_what_was_published() -> None:
    made = design(Weights.FIXED16, 1, 256)
    assert dense(made) + experts(made) == pytest.approx(PUBLISHED, rel=0.05)
