"""The generated kernel, compiled by g++, gives the bits of the integer reference."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from moec.fixed.design import Design, Order
from tests.backends.hls.cpp.designs import DESIGNS, design
from tests.backends.hls.cpp.projects import make, write
from tests.fixed.layers import layers

QUICK = ("shared",)
"""Those that are not slow; the host programs' tests run "edge"."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in DESIGNS]
)
def test_bits_under_sanitizers(name: str, tmp_path: Path) -> None:
    """Random values, crowds at few experts and none at the others, ties, extreme values; no token, one, and many."""
    write(DESIGNS[name], tmp_path)
    done = make(tmp_path, "csim-sanitized")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASS") == 12
    assert "FAIL" not in done.stdout
    # One code that differs is found.
    result = tmp_path / "tb/vectors/random/result.bin"
    result.write_bytes(bytes([result.read_bytes()[0] ^ 1]) + result.read_bytes()[1:])
    done = make(tmp_path, "csim-sanitized")
    assert done.returncode != 0
    assert "FAIL" in done.stdout


@st.composite
def designs(draw: st.DrawFn) -> Design:
    power = st.sampled_from([1, 2, 4, 8, 16])
    return design(
        draw(layers()),
        inputs=draw(power),
        outputs=draw(power),
        ports=draw(st.sampled_from([1, 2, 4])),
        port_bits=draw(st.sampled_from([64, 128, 512])),
        tokens=draw(st.integers(1, 40)),
        order=draw(st.sampled_from(Order)),
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@hypothesis.settings(
    max_examples=6, suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate]
)
@hypothesis.given(any_design=designs())
def test_bits_of_any_design(any_design: Design, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")
    write(any_design, folder)
    done = make(folder, "csim")
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_wrong_kernel_is_found(tmp_path: Path) -> None:
    """The test bench fails for a kernel that rounds halves down."""
    write(DESIGNS["tokens"], tmp_path)
    header = tmp_path / "src" / "arithmetic.h"
    right = "(product + (ap_int<49>(1) << (places - 1))) >> places"
    text = header.read_text()
    assert text.count(right) == 1
    header.write_text(text.replace(right, "(product + (ap_int<49>(1) << (places - 1)) - 1) >> places"))
    done = make(tmp_path, "csim")
    assert done.returncode != 0
    assert "FAIL" in done.stdout


def test_missing_headers_are_named(tmp_path: Path) -> None:
    write(DESIGNS["one"], tmp_path)
    if shutil.which("make") is None:
        pytest.skip("needs make")
    done = subprocess.run(["make", "csim", "AP_TYPES=/nowhere"], cwd=tmp_path, text=True, stderr=subprocess.PIPE)
    assert done.returncode != 0
    assert "no ap_int.h: pip install --no-deps hls4ml, or make AP_TYPES=folder" in done.stderr
