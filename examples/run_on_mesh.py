"""One process of a layer on a mesh: runs it on tokens of its own, and compares with the layer in one process.

torchrun starts as many of it as the mesh has devices; docs/parallel.md goes through it.

    torchrun --nproc-per-node 2 examples/run_on_mesh.py two.so
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

import moec
from moec.artifact.container import read

WEIGHTS, TOKENS = 7, 8  # seeds; from one of both, tokens would look like the router's weights


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", help="what `moec compile` wrote of a layout on a mesh")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each process in a call")
    parser.add_argument("--calls", type=int, default=20, help="calls that are timed")
    arguments = parser.parse_args()

    manifest = read(arguments.artifact).manifest
    if manifest.parallel is None:
        parser.error(f"{arguments.artifact} was compiled for one process")
    axes = manifest.parallel.mesh
    mesh = init_device_mesh("cpu", axes.shape, mesh_dim_names=axes.names)
    layer = moec.load(arguments.artifact, mesh=mesh).reset_parameters(WEIGHTS)

    x = manifest.inputs[0]
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[x.dtype]
    parts = axes.size(manifest.parallel.tokens)  # ranks along other axes have the same tokens
    position = axes.position(dist.get_rank(), manifest.parallel.tokens)
    random = torch.Generator().manual_seed(TOKENS)
    batch = torch.randn(parts * arguments.tokens, *x.row, generator=random).to(dtype)
    mine = slice(position * arguments.tokens, (position + 1) * arguments.tokens)

    times = []
    with torch.inference_mode():
        for _ in range(arguments.calls):
            start = time.perf_counter()
            y = layer(batch[mine])
            times.append(time.perf_counter() - start)
        whole = moec.load(arguments.artifact).reset_parameters(WEIGHTS)(batch)[mine]  # one process, all tokens
    held = ", ".join(f"{name} {list(value.shape)}" for name, value in layer.state_dict().items() if "up" in name)
    same = torch.equal(y, whole)
    error = (y.float() - whole.float()).norm() / whole.float().norm()
    print(
        f"rank {layer.rank} of {axes.ranks}: {held}; {1e3 * statistics.median(times):.2f} ms a call; "
        f"{'the same bits as in one process' if same else f'differs by {error:.1e}'}",
        flush=True,
    )
    dist.destroy_process_group()
    return int(manifest.parallel.exact and not same)


if __name__ == "__main__":
    sys.exit(main())
