"""Variants that run some calls of a module, as a layer that follows its load publishes them."""

from __future__ import annotations

import random

import torch

from moec.artifact import container
from moec.artifact.specialisation import QuantisedExperts, Specialisation
from moec.pipeline.respecialise import respecialise
from moec.runtime.adapt.published import BASE, Build, Overlay, Published
from moec.runtime.adapt.transfer import transferred
from moec.runtime.module import Layer
from moec.runtime.native import bind, library
from tests.fuzz.inference import Packed, pack
from tests.fuzz.tensors import weights
from tests.fuzz.ways.tried import Tried, require_same

COUNTS = (1, 2, 7, 16, 17, 40, 130, 300)


def run(tried: Tried) -> None:
    module = tried.module()
    rng = random.Random(tried.sample.seed)
    store = module._store
    kernels = {BASE: tried.layer}
    overlays = []
    for number, special in enumerate(specialisations(tried)):
        build, kernels[special.name] = built(tried, module, special, number + 1)
        first = rng.choice(COUNTS)
        overlays.append(Overlay(first, rng.choice((None, first, first + 20, 400)), build))
    published = Published(Build(BASE, 0, store.kernel, store.buffer))
    for overlay in overlays:
        published = published.with_overlay(overlay)
    assert store.publish(published, store.generation)
    with torch.no_grad():
        for count in rng.sample(COUNTS, len(COUNTS)):
            batch = tried.tokens(count)
            name = published.choose(count).name
            require_same(module(**batch), kernels[name](batch), f"{name}, {count} tokens")
        others = weights(tried.layer.manifest, "random", torch.Generator().manual_seed(tried.sample.seed + 1))
        module.load_state_dict(others)
        left = store.published  # those that read the layer's own buffer
        for count in COUNTS[:5]:
            batch = tried.tokens(count)
            name = BASE if left is None else left.choose(count).name
            now = pack(kernels[name].kernel, others)
            require_same(module(**batch), now(batch), f"{name}, {count} tokens, other weights since it was published")


def specialisations(tried: Tried) -> list[Specialisation]:
    """Some that this layer can have."""
    found = [Specialisation("few", tokens=(1, 16))]
    sample = tried.sample
    if sample.quantised is not None:
        numbers, format_, group = sample.quantised
        coded = QuantisedExperts("routed", numbers, format_, group, "bf16" if group else "f32")
        found.append(Specialisation("cold", quantised=(coded,)))
    if sample.capacity is not None:
        found.append(Specialisation("refit", capacity=sample.capacity))
    return found


def built(tried: Tried, module: Layer, special: Specialisation, number: int) -> tuple[Build, Packed]:
    """A variant with the weights that the module has, and with those that it was given."""
    path = tried.folder / f"way_{special.name}.so"
    variant = tried.layer.kernel.variant
    respecialise(tried.artifact, special, path, variant)
    kernel = bind(library(container.read(path)), variant)
    have = transferred(kernel, module._store)
    return Build(special.name, number, kernel, have.packed, lender=have.lender), pack(kernel, tried.layer.given)
