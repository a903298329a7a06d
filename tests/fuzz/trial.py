"""All that is asked of one sample: compile it, compare it, make variants of it, train it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from torch_mlir import ir

import moec
from moec.artifact import container
from moec.artifact.host import host_features, missing_features
from moec.artifact.specialisation import QuantisedExperts, Specialisation
from moec.backends.cpu.backend import CpuBackend
from moec.backends.cpu.isa import Variant
from moec.dialect import context
from moec.errors import DiagnosticError
from moec.pipeline import ir_text
from moec.pipeline.respecialise import respecialise
from moec.runtime.native import Kernel, bind, layout, library
from tests.bits import same_bits
from tests.fuzz import training
from tests.fuzz.inference import Packed, check, pack
from tests.fuzz.layers import COUNTS_FILE, NO_WAY, Sample
from tests.fuzz.tensors import Named, inputs, weights
from tests.fuzz.ways import WAYS
from tests.fuzz.ways.tried import Tried
from tests.guarded import guarded


@contextmanager
def one_of(choose: Callable[[Sequence[Variant], Sequence[Variant]], Variant]) -> Iterator[None]:
    """Compile for one instruction set, chosen among all that a layer is compiled for and those that run here."""
    every, have = CpuBackend.variants, host_features()

    def one(backend: CpuBackend, module: ir.Module) -> tuple[Variant, ...]:
        known = every(backend, module)
        return (choose(known, [variant for variant in known if not missing_features(variant, have)]),)

    with patch.object(CpuBackend, "variants", one):
        yield


def asked_for(sample: Sample) -> Callable[[Sequence[Variant], Sequence[Variant]], Variant]:
    """The instruction set that a sample asks for: mostly the best that runs here, sometimes one that does not."""

    def choose(known: Sequence[Variant], runs: Sequence[Variant]) -> Variant:
        if sample.variant == 0:
            return known[sample.seed % len(known)]
        return runs[0 if sample.variant % 3 else -1]

    return choose


def run(sample: Sample, folder: Path) -> bool:
    """Everything.  False where the compiler refuses the file, which it may where the sample is not `certain`.

    Raises AssertionError, or what else is wrong.
    """
    file, artifact = folder / "layer.moe", folder / "layer.so"
    file.write_text(sample.text)
    (folder / COUNTS_FILE).write_text(json.dumps(sample.counts))
    with one_of(asked_for(sample)):
        try:
            moec.compile(file, artifact, training=sample.training)
        except DiagnosticError as error:
            if sample.certain or {one.code for one in error.diagnostics} != {"E0610"}:
                raise
            return False
        (variant,) = container.read(artifact).manifest.variants
        if not missing_features(variant, host_features()):
            _try(sample, artifact, folder, variant.name)
    return True


def _try(sample: Sample, artifact: Path, folder: Path, variant: str) -> None:
    made = container.read(artifact)
    graph = ir_text.parse(made.texts[container.GRAPH_IR], "graph", context())
    kernel = bind(library(made), variant)
    generator = torch.Generator().manual_seed(sample.seed)
    layer = pack(kernel, weights(kernel.library.manifest, sample.routing, generator))
    for tokens in sample.tokens:
        check(layer, graph, tokens, sample.routing, sample.seed + tokens, None)
    _by_module(artifact, layer, variant, sample)
    if sample.training:
        training.check(made.texts[container.GRAPH_IR], layer, sample.tokens, sample.routing, sample.seed)
    for special, exactly in _specialisations(sample):
        _special(sample, artifact, folder, layer, special, layer if exactly else None)
    if sample.way != NO_WAY:
        WAYS[sample.way](Tried(sample, artifact, folder, layer, graph))


def _by_module(artifact: Path, layer: Packed, variant: str, sample: Sample) -> None:
    """The layer as users have it: the same bits, and the weights that it was given."""
    module = moec.load(artifact, variant=variant, keep_weights=sample.seed % 2 == 0)
    module.load_state_dict(layer.given)
    tensors = inputs(layer.manifest, 9, sample.routing, torch.Generator().manual_seed(sample.seed))
    module.eval()
    with torch.no_grad():
        y = module(**tensors)
    assert same_bits(y, layer(tensors)), "the module has other bits than its kernels"
    quantised = layer.manifest.quantised
    if module._store.keep or quantised is None or all(one.scales for one in quantised.stored):
        state = module.state_dict()
        assert all(same_bits(tensor, state[name]) for name, tensor in layer.given.items()), "weights do not come back"


def _specialisations(sample: Sample) -> Iterator[tuple[Specialisation, bool]]:
    """What variants are made for, and whether they promise the layer's bits."""
    if sample.ranges is not None:
        yield Specialisation("range", tokens=sample.ranges), True
    if sample.quantised is not None:
        numbers, format_, group = sample.quantised
        coded = QuantisedExperts("routed", numbers, format_, group, "bf16" if group else "f32")
        yield Specialisation("cold", quantised=(coded,)), False
    if sample.capacity is not None:
        yield Specialisation("refit", capacity=sample.capacity), False


def _special(
    sample: Sample,
    artifact: Path,
    folder: Path,
    layer: Packed,
    special: Specialisation,
    same_as: Callable[[Named], torch.Tensor] | None,
) -> None:
    path = folder / f"{special.name}.so"
    respecialise(artifact, special, path, layer.kernel.variant)
    made = container.read(path)
    kernel = bind(library(made), layer.kernel.variant)
    other = pack(kernel, layer.given)
    graph = ir_text.parse(made.texts[container.GRAPH_IR], "graph", context())
    ends = special.tokens or (1, 40)
    for tokens in {min(ends[0], 310), min(ends[1], 300), *sample.tokens}:
        check(other, graph, tokens, sample.routing, sample.seed + tokens, same_as)
    adoption = layout(kernel).adoption
    if adoption is not None:
        assert adoption.layout == layout(layer.kernel).layout
        _adopt(kernel, layer, other, sample)


def _adopt(kernel: Kernel, layer: Packed, other: Packed, sample: Sample) -> None:
    """Packed weights that are taken over give the bits of those that are packed."""
    adoption = layout(kernel).adoption
    assert adoption is not None
    taken = guarded((other.packed.numel(),), torch.uint8, 0xFF, alignment=64)
    scratch = guarded((adoption.scratch,), torch.uint8, 0xFF, alignment=64)
    for step in reversed(range(adoption.steps)):
        kernel.call("adopt", step, layer.packed, taken.tensor, scratch.tensor)
    assert taken.intact, "`adopt` wrote beside the packed weights"
    assert scratch.intact, "`adopt` wrote beside its scratch memory"
    adopted = Packed(kernel, taken.tensor, layer.given)
    for tokens in (1, 33):
        tensors = inputs(layer.manifest, tokens, sample.routing, torch.Generator().manual_seed(sample.seed))
        assert same_bits(adopted(tensors), other(tensors)), "weights taken over give other bits than packed ones"
