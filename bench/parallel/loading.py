"""The measured layer on a rank, with the weights of its experts."""

from __future__ import annotations

from collections.abc import Mapping

import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

import moec
from bench.parallel.sizes import Size
from moec.runtime.parallel.layer import ParallelLayer

LIMIT = 300.0
"""Seconds that a rank waits for others."""


def loaded(size: Size, artifact: str, mesh: Mapping[str, int]) -> ParallelLayer:
    """The compiled layer over a mesh of these sizes by name."""
    devices = init_device_mesh("cpu", tuple(mesh.values()), mesh_dim_names=tuple(mesh))
    layer = moec.load(artifact, mesh=devices, timeout=LIMIT)
    share = size.count // dist.get_world_size()
    first = layer.position * share
    layer.load_state_dict({"router.logits.weight": size.router(), **size.experts(range(first, first + share))})
    return layer
