"""`python -m bench.fixed_accuracy`: the error of a fixed-point layer against float64, by the width of its weights.

The layer of `examples/edge_moe.moe` with random normal weights and samples, calibrated on 1024 tokens and measured on
as many others.  A token whose scores are close may get another expert; how often that happens, and the error of the
other tokens, are told apart.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from moec.backends.hls.read import read
from moec.fixed.calibrate import calibrate
from moec.fixed.interface import shapes
from moec.fixed.scales import Error
from moec.fixed.values import gather
from moec.pipeline.driver import Compilation

FORMATS = ("f32", "int8(per = channel)", "int4(per = channel)", "ternary(per = channel)")
EXAMPLE = Path(__file__).parent.parent / "examples" / "edge_moe.moe"


def error(format: str, tokens: int) -> Error:
    """On other tokens than those of the calibration."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "layer.moe"
        path.write_text(re.sub(r"bias = true\) : .*", f"bias = true) : {format}", EXAMPLE.read_text()))
        found = read(Compilation(path).graph)
    layer, face = found.layer, found.interface
    rng = np.random.default_rng(0)
    tensors = {
        name: (rng.normal(size=shape) * (shape[-1] ** -0.5 if name.endswith("weight") else 0.1)).astype(np.float32)
        for name, shape in shapes(layer, face).items()
    }
    samples = [(rng.normal(size=(tokens, layer.width)), rng.integers(0, layer.router.tasks, tokens)) for _ in range(2)]
    calibration = calibrate(layer, gather(layer, face, tensors), *samples[0], samples[1])
    return calibration.checked or calibration.error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1024)
    tokens = parser.parse_args().tokens
    print("| weights | error | of tokens with the same experts | these tokens | largest, of the r.m.s. |")
    print("|---|---|---|---|---|")
    for format in FORMATS:
        got = error(format, tokens)
        print(f"| `{format}` | {got.relative:.2%} | {got.agreeing:.2%} | {got.experts:.1%} | {got.largest:.2f} |")


if __name__ == "__main__":
    main()
