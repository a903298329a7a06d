"""Simulations are built fast and run slowly: their cases are small."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def verilated_without_optimisation() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAKEFLAGS", "OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0")
        yield
