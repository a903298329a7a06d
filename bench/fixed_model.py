"""`python -m bench.fixed_model`: what fixed-point layers do to the accuracy of a model that was trained in f32.

A classifier of points in 32 dimensions, whose classes a random network tells apart: an embedding, two residual MoE
layers, a head.  It is trained with moec's CPU layers; then their weights go into hardware projects of every width of
weights, which are calibrated by running the model, and compared on points that none of this has seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import moec

D, FF, EXPERTS, SLOTS, CLASSES, INPUTS = 64, 96, 8, 2, 10, 32
FORMATS = ("f32", "int8(per = channel, x = f32)", "int4(per = channel, x = f32)", "ternary(per = channel, x = f32)")


def source(format: str) -> str:
    return f"""edition 1
layer Block(d = {D}, ff = {FF}) {{
  router softmax_top({SLOTS}) : f32
  experts routed[{EXPERTS}] = mlp_gelu(d, ff, bias = true) : {format}
}}
"""


class Model(nn.Module):
    """Logits of the classes, [T, 10], of points [T, 32], with two MoE layers."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Linear(INPUTS, D)
        self.norms = nn.ModuleList(nn.LayerNorm(D) for _ in range(2))
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(D, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            h = h + layer(norm(h).contiguous())
        result: Tensor = self.head(h)
        return result


def points(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points and their classes: the largest of what a fixed random network gives, made about equally frequent."""
    own = torch.Generator().manual_seed(0)
    first, second = torch.randn(48, INPUTS, generator=own), torch.randn(CLASSES, 48, generator=own)
    x = torch.randn(count, INPUTS, generator=torch.Generator().manual_seed(seed))
    scores = torch.tanh(x @ first.T * 0.3) @ second.T
    return x, scores.argmax(-1)


def train(model: Model, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        x, y = points(512, 1000 + step)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--board", default="zcu102")
    options = parser.parse_args()
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        stack.enter_context(torch.random.fork_rng())
        torch.manual_seed(0)
        file = folder / "block.moe"
        file.write_text(source("f32"))
        artifact = moec.compile(file, training=True)
        trained = Model([moec.load(artifact, training=True).reset_parameters() for _ in range(2)])
        train(trained, options.steps)
        x, y = points(4096, 1)
        trained.eval()
        with torch.no_grad():
            exact = trained(x)
        print(f"trained in f32: {float((exact.argmax(-1) == y).float().mean()):.2%} right\n", flush=True)
        print("| weights | right | as the model in f32 says | error of each layer |\n|---|---|---|---|")
        for number, format in enumerate(FORMATS):
            file.write_text(source(format))
            project = moec.compile(file, folder / str(number), target=f"hls:{options.board},rtl=no,tokens=1024")
            layers = [moec.load(project, rtl=False) for _ in range(2)]
            model = Model(layers)
            model.load_state_dict(trained.state_dict())
            with torch.no_grad():
                with ExitStack() as calibrations:
                    for layer in layers:
                        calibrations.enter_context(layer.calibrating())
                    model(points(4096, 2)[0])
                got = model(x)
            right, same = ((got.argmax(-1) == one).float().mean() for one in (y, exact.argmax(-1)))
            errors = ", ".join(f"{one.calibration.error.relative:.2%}" for one in layers if one.calibration is not None)
            print(
                f"| `{format.replace(', x = f32', '')}` | {float(right):.2%} | {float(same):.2%} | {errors} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
