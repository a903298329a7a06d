"""The Triton layer that bench/gpu.py measures, where Triton is installed: compiled for an H100 without one, and run by
Triton's interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("triton")

COMPILED = """
import sys
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from bench.cuda.triton_kernels import combine_kernel, down_kernel, up_kernel

def check(kernel, types, constants):
    every = {**types, **dict.fromkeys(constants, "constexpr")}
    compile(ASTSource(kernel, every, constants), target=GPUTarget("cuda", 90, 32))

plan = {"order": "*i32", "tile_ends": "*i32", "offsets": "*i32", "experts": "i32"}
tile = {"D": 128, "FF": 64, "BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 64}
check(up_kernel, {**dict.fromkeys(("x", "gate", "up", "hidden"), "*bf16"), **plan}, {**tile, "TOP_K": 2})
check(down_kernel, {"hidden": "*bf16", "down": "*bf16", "share": "*fp32", "rows_out": "*bf16", **plan}, tile)
check(combine_kernel, {"rows": "*bf16", "y": "*bf16"}, {"D": 128, "TOP_K": 2, "BLOCK": 128})
"""

INTERPRETED = """
import torch
from bench.cuda import data, reference, triton_layer
from bench.cuda.shapes import Shape

cpu, tile = torch.device("cpu"), triton_layer.Tile(16, 32, 32, 4, 2)
for shape in (Shape("Tiny", 5, 72, 40, 3, 29, dtype="f16"), Shape("One", 1, 64, 32, 1, 5, dtype="f16")):
    for routing in ("random", "one", "half"):
        weights, x = data.weights(shape, cpu, 1, routing), data.tokens(shape, shape.tokens, cpu, 1)
        y = triton_layer.run(shape, weights, x, tile, tile)
        outcome = reference.compare(shape, weights, x, y)
        assert outcome.ok, (shape, routing, outcome)
"""


@pytest.mark.parametrize(("script", "interpreted"), [(COMPILED, "0"), (INTERPRETED, "1")])
def test_kernels_are_right(script: str, interpreted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", interpreted)  # its multiplication of bf16 is wrong, so values are f16
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
