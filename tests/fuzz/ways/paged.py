"""Packed weights in a file whose pages go while calls read them; variants that read some of them there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from moec.runtime.adapt.mapped import MappedMemory
from moec.runtime.adapt.published import BASE, Build, Overlay, Published
from tests.fuzz.inference import pack
from tests.fuzz.tensors import weights
from tests.fuzz.ways.tried import Tried, require_same
from tests.fuzz.ways.variants import built, specialisations

COUNTS = (1, 40, 3, 0, 300)
ROUNDS = 3


def run(tried: Tried) -> None:
    module = tried.module()
    store = module._store
    memory = MappedMemory(int(tried.layer.kernel.call("packed_bytes")), tried.folder)
    with torch.no_grad():
        module(**tried.tokens(3))
        store.move(memory)
        with _forgetting(memory):
            for count in COUNTS * ROUNDS:
                batch = tried.tokens(count)
                require_same(module(**batch), tried.layer(batch), f"{count} tokens, paged")
            others = weights(tried.layer.manifest, "random", torch.Generator().manual_seed(tried.sample.seed + 1))
            module.load_state_dict(others)
            now = pack(tried.layer.kernel, others)
            for count in COUNTS:
                batch = tried.tokens(count)
                require_same(module(**batch), now(batch), f"{count} tokens, paged, other weights")
            module.load_state_dict(tried.layer.given)
        _variants(tried, module, memory)


def _variants(tried: Tried, module: torch.nn.Module, memory: MappedMemory) -> None:
    store = module._store
    for number, special in enumerate(specialisations(tried)):
        build, kernels = built(tried, module, special, number + 1)
        published = Published(Build(BASE, 0, store.kernel, store.buffer)).with_overlay(Overlay(1, None, build))
        assert store.publish(published, store.generation)
        with _forgetting(memory):
            for count in COUNTS:
                batch = tried.tokens(count)
                wanted = kernels(batch) if count else tried.layer(batch)
                require_same(module(**batch), wanted, f"{special.name}, {count} tokens, paged")


@contextmanager
def _forgetting(memory: MappedMemory) -> Iterator[None]:
    """Pages go all the time."""
    ended = threading.Event()

    def drop() -> None:
        while not ended.is_set():
            memory.drop([(0, memory.nbytes)])
            ended.wait(0.001)

    thread = threading.Thread(target=drop)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
