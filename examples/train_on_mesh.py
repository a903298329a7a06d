"""One process of a layer that is trained on a mesh, and goes on from its last checkpoint when any of them died.

torchrun starts as many of it as the mesh has devices, and all of them again when one ends with an error:

    moec compile --training --layout OnTwo examples/train_on_mesh.moe -o two.so
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1  # else started processes find the addresses of those that died
    torchrun --standalone --nproc-per-node 2 --max-restarts 3 examples/train_on_mesh.py two.so --checkpoints steps

Another number of processes, with an artifact for it, goes on from the same checkpoints.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

import moec
from moec.artifact.container import read
from moec.errors import RankError
from moec.runtime.parallel.checkpoints import latest, load, save


def train(artifact: str, steps: int, every: int, folder: Path, batch: int, timeout: float) -> float:
    """The loss of the last step: the error of the whole batch and the auxiliary losses."""
    parallel = read(artifact).manifest.parallel
    if parallel is None:
        raise SystemExit(f"{artifact} was compiled for one process")
    axes = parallel.mesh
    mesh = init_device_mesh("cpu", axes.shape, mesh_dim_names=axes.names)
    layer = moec.load(artifact, mesh=mesh, training=True, timeout=timeout).reset_parameters(7)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.01)
    found = latest(folder)
    begin = 0 if found is None else load(found, layer, optimizer)["step"]
    print(
        f"rank {dist.get_rank()} of {dist.get_world_size()}, process {os.getpid()}, begins at step {begin}", flush=True
    )

    columns = layer.manifest.inputs[0].row[0]
    own = batch // axes.size(parallel.tokens)
    first = axes.position(layer.rank, parallel.tokens) * own
    value = 0.0
    for step in range(begin, steps):
        x, target = data(step, batch, columns)
        x, target = x[first : first + own], target[first : first + own]
        y, auxiliary = layer(x)
        # Gradients are of the sum of the ranks' losses; the auxiliary ones are of the whole batch on every rank.
        error = (y - target).square().sum() / (batch * columns)
        optimizer.zero_grad()
        (error + auxiliary).backward()
        optimizer.step()
        value = mean(error.detach()) + auxiliary.item()
        if (step + 1) % every == 0 or step + 1 == steps:
            save(folder / f"step_{step + 1}", layer, optimizer, {"step": step + 1})
    return value


def data(step: int, tokens: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch of a step, the same on all ranks: tokens, and what is to become of them."""
    random = torch.Generator().manual_seed(step)
    x = torch.randn(tokens, columns, generator=random)
    return x, x.roll(1, 1).sin()


def mean(part: torch.Tensor) -> float:
    """The sum of the ranks' parts of the error."""
    total = part.clone()
    dist.all_reduce(total)
    return float(total)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", help="what `moec compile --training` wrote of a layout on a mesh")
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder that all processes reach")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=5, help="steps between checkpoints")
    parser.add_argument("--batch", type=int, default=64, help="tokens of all processes in a step")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds to wait for other processes")
    given = parser.parse_args()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    dist.init_process_group("gloo")
    try:
        value = train(given.artifact, given.steps, given.every, given.checkpoints, given.batch, given.timeout)
    except RankError as error:
        print(f"rank {dist.get_rank()}: {error}", file=sys.stderr, flush=True)
        os._exit(1)  # at once: the process groups would wait for the others first
    if dist.get_rank() == 0:
        print(f"loss {value:.9f}", flush=True)
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
