"""`python -m bench.accuracy`: the error of quantised experts against the layer without formats, in float64.

Experts of OLMoE's size with random normal weights, 8 of 16 chosen for each token.  Trained weights have outliers, with
which channels fare worse than groups; what that does to a model's quality only the model can tell.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor

import moec

FORMATS = (
    "bf16", "int8(per = channel)", "int8(group = 128)", "int4(group = 32)", "int4(group = 128)", "int4(per = channel)",
    "ternary(group = 128)", "ternary(per = channel)", "fp8_e4m3(per = channel)", "fp8_e4m3(group = 128)",
)  # fmt: skip


def source(format: str, int8_rows: bool, d: int, ff: int, experts: int, slots: int) -> str:
    approx = "  approx rows as int8\n" if int8_rows else ""
    return f"""edition 1
layer Accuracy(d = {d}, ff = {ff}) {{
  router softmax_top({slots}) : f32
  experts routed[{experts}] = swiglu(d, ff) : {format}
{approx}}}
"""


def exact(state: dict[str, Tensor], x: Tensor, slots: int) -> Tensor:
    """The layer without formats in float64, [T, d]."""
    x = x.double()
    p = (x @ state["router.logits.weight"].double().T).softmax(-1)
    weight, pick = p.topk(slots, -1)
    gate = torch.zeros_like(p).scatter(1, pick, weight / weight.sum(-1, keepdim=True))
    y = torch.zeros_like(x)
    for e in range(p.shape[1]):  # one at a time: all experts in float64 take gigabytes
        g, u, d = (state[f"routed.{name}.weight"][e].double() for name in ("gate", "up", "down"))
        y += gate[:, e : e + 1] * ((F.silu(x @ g.T) * (x @ u.T)) @ d.T)
    return y


def relative_error(
    format: str, int8_rows: bool, *, d: int = 2048, ff: int = 1024, experts: int = 16, slots: int = 8, tokens: int = 64
) -> float:
    """Frobenius norm of the error over that of the exact result."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "accuracy.moe"
        path.write_text(source(format, int8_rows, d, ff, experts, slots))
        layer = moec.load(moec.compile(path), keep_weights=True).reset_parameters(0)
    x = torch.randn(tokens, d, generator=torch.Generator().manual_seed(1)).bfloat16()
    want = exact(dict(layer.state_dict()), x, slots)
    with torch.no_grad():
        return float((layer(x).double() - want).norm() / want.norm())


def main() -> None:
    argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__).parse_args()
    print("| format | rows in bf16 | rows in int8 |\n|---|---|---|")
    for format in FORMATS:
        rows = [False] if format.startswith(("bf16", "fp8")) else [False, True]
        errors = [f"{relative_error(format, int8_rows):.2%}" for int8_rows in rows]
        print(f"| `{format}` | {' | '.join(errors + ['–'] * (2 - len(errors)))} |", flush=True)


if __name__ == "__main__":
    main()
