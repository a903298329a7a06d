"""Layers that come and go: threads, and what they hold, go along."""

from __future__ import annotations

import threading
import weakref

import pytest
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

import moec
from moec.runtime.parallel.moving.follow import follow
from tests.parallel.moving.toy import FAST, alive
from tests.parallel.ranks import run
from tests.parallel.test_layer import inputs
from tests.parallel.test_streams import ends
from tests.parallel.test_training import artifact

pytestmark = pytest.mark.long


def on_rank(path: str) -> None:
    """Layers come and go, with a network of their mesh that stays, and then another process group."""
    for times in range(2):
        mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("gpu",))
        for training in (False, True, False):
            layer = moec.load(path, mesh=mesh, training=training, timeout=120.0).reset_parameters(0)
            y = layer(*inputs(layer.manifest, 64, 0))
            if training:
                y = y[0] if isinstance(y, tuple) else y
                y.sum().backward()
            else:
                follow([layer], FAST)
            assert streams(), "so few tokens take no thread"
            gone = weakref.ref(layer), weakref.ref(layer.pieces["experts"])
            del layer, y
            assert ends(lambda gone=gone: not any(one() is not None for one in gone) and not streams())
            assert ends(lambda: not alive("moec-moving"))
        assert [thread.name for thread in threading.enumerate()].count("moec-watch") == 1
        store = dist.distributed_c10d._get_default_store()
        rank = dist.get_rank()
        dist.destroy_process_group()
        assert ends(lambda: not alive("moec-watch"))
        dist.init_process_group("gloo", store=dist.PrefixStore(f"again {times}", store), rank=rank, world_size=2)


def streams() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("moec-net.")]


def test_a_layer_that_is_dropped_takes_its_threads_along() -> None:
    run(on_rank, 2, str(artifact("bf16")))
