"""The oracle's quantised operations against loops over single numbers, written from docs/ir.md."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from moec import oracle
from moec.dialect import context
from moec.formats import FORMATS
from moec.pipeline.ir_text import parse

Floats = np.ndarray

LIMITS = {"int8": (-127, 127), "int4": (-8, 7), "ternary": (-1, 1), "fp8_e4m3": (-448, 448)}


def e4m3() -> list[tuple[float, int]]:
    """Every positive number of E4M3 with its code, from its definition."""
    normal = [(2.0 ** (e - 7) * (1 + f / 8), 8 * e + f) for e in range(1, 16) for f in range(8)]
    return [(2.0**-6 * f / 8, f) for f in range(8)] + normal[:-1]  # the last one is NaN


NUMBERS = e4m3()


def nearest(number: float) -> float:
    """That of E4M3 nearest to a number from -448 to 448; of two the one whose code is even."""
    found, _ = min(NUMBERS, key=lambda one: (abs(one[0] - abs(number)), one[1] % 2))
    return math.copysign(found, number)


def one_group(weights: list[float], name: str, scale_dtype: torch.dtype) -> tuple[list[float], float]:
    """Codes and scale of one group, number by number in float32."""
    magnitudes = [abs(w) for w in weights]
    if name == "ternary":
        scale = np.float32(sum(magnitudes) / len(weights))
    else:
        largest = math.nan if any(math.isnan(m) for m in magnitudes) else max(magnitudes)
        scale = np.float32(largest) / np.float32(LIMITS[name][1])
    kept = np.float32(torch.tensor(float(scale)).to(scale_dtype).item())
    codes = []
    for w in weights:
        quotient = np.float32(w) / kept
        low, high = LIMITS[name]
        clamped = 0.0 if np.isnan(quotient) else min(max(float(quotient), low), high)
        codes.append(nearest(clamped) if name == "fp8_e4m3" else float(np.rint(clamped)))
    return codes, float(kept)


def by_hand(weights: Floats, name: str, groups: int, scale_dtype: torch.dtype) -> Floats:
    """The dequantised weights [E, N, K]."""
    out = np.empty(weights.shape)
    size = weights.shape[2] // groups
    for e, n, g in np.ndindex(*weights.shape[:2], groups):
        cut = slice(g * size, (g + 1) * size)
        codes, scale = one_group([float(w) for w in weights[e, n, cut]], name, scale_dtype)
        out[e, n, cut] = [code * scale for code in codes]
    return out


def quantised(weights: Floats, name: str, groups: int, scale: str) -> Floats:
    e, n, k = weights.shape
    codes, scales = f"tensor<{e}x{n}x{k}x{FORMATS[name].element}>", f"tensor<{e}x{n}x{groups}x{scale}>"
    module = parse(
        f"""func.func @f(%w: tensor<{e}x{n}x{k}xf32> {{moe.name = "w", moe.role = "parameter"}})
        -> (tensor<{e}x{n}x{k}xf32> {{moe.name = "y"}}) {{
  %c, %s = "moe.quantize"(%w) {{format = "{name}"}} : (tensor<{e}x{n}x{k}xf32>) -> ({codes}, {scales})
  %d = "moe.dequantize"(%c, %s) {{format = "{name}"}} : ({codes}, {scales}) -> tensor<{e}x{n}x{k}xf32>
  return %d : tensor<{e}x{n}x{k}xf32>
}}""",
        "quantised",
        context(),
    )
    return oracle.run(module, {"w": weights})["y"]


def weights(kind: str) -> Floats:
    rng = np.random.default_rng(7)
    w = rng.standard_normal((2, 3, 12)).astype(np.float32)
    if kind == "zeros":
        w[1, 2, :6] = 0.0
    elif kind == "ties":  # every quotient is a half or a whole number
        w = (rng.integers(-14, 15, w.shape) / 2).astype(np.float32)
        w[..., ::6] = 7.0
    elif kind == "tiny":
        w *= np.float32(1e-42)
    elif kind == "spoilt":
        w[0, 0, 3], w[1, 1, 8] = np.nan, np.inf
    return w


@np.errstate(all="ignore")
@pytest.mark.parametrize("kind", ["random", "zeros", "ties", "tiny", "spoilt"])
@pytest.mark.parametrize(("groups", "scale"), [(1, "f32"), (2, "bf16"), (12, "bf16")])
@pytest.mark.parametrize("name", LIMITS)
def test_weights(name: str, groups: int, scale: str, kind: str) -> None:
    w = weights(kind)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[scale]
    np.testing.assert_array_equal(quantised(w, name, groups, scale), by_hand(w, name, groups, dtype))


@np.errstate(all="ignore")
@pytest.mark.parametrize("tokens", [0, 1, 4])
def test_rows(tokens: int) -> None:
    module = parse(
        """func.func @f(%x: tensor<?x12xf32> {moe.name = "x", moe.role = "input"})
        -> (tensor<?x12xf32> {moe.name = "y"}) {
  %q = "moe.quantize_rows"(%x) : (tensor<?x12xf32>) -> tensor<?x12xf32>
  return %q : tensor<?x12xf32>
}""",
        "rows",
        context(),
    )
    x = np.concatenate([weights("random")[0], weights("spoilt")[0, :1]])[:tokens]
    want = by_hand(x[None], "int8", 1, torch.float32)[0]
    np.testing.assert_array_equal(oracle.run(module, {"x": x})["y"], want)
