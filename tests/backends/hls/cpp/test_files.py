"""Every file that is generated, byte by byte."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from moec.backends.hls.cpp.project import files
from tests.backends.hls.cpp.designs import DESIGNS


def _text(name: str) -> dict[str, str]:
    return {p: data.decode() for p, data in files(DESIGNS[name]).items() if not p.endswith(".bin")}


def test_a_project(golden: Callable[[str, str], None]) -> None:
    for path, text in _text("edge").items():
        golden(f"edge/{path}.txt", text)


@pytest.mark.parametrize("name", [name for name in DESIGNS if name != "edge"])
def test_what_other_designs_change(name: str, golden: Callable[[str, str], None]) -> None:
    usual = _text("edge")
    for path, text in _text(name).items():
        if text != usual.get(path):
            golden(f"{name}/{path}.txt", text)


@pytest.mark.parametrize("name", DESIGNS)
def test_vectors(name: str, golden: Callable[[str, str], None]) -> None:
    vectors = {p: data for p, data in files(DESIGNS[name]).items() if p.endswith(".bin")}
    listed = [f"{hashlib.sha256(data).hexdigest()[:16]} {len(data):7} {path}" for path, data in vectors.items()]
    golden(f"{name}/vectors.txt", "\n".join(listed) + "\n")
