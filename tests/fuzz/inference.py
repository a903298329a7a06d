"""What is asked of a layer for inference: the oracle's numbers, and the same bits in whatever way it is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch_mlir import ir

from moec import oracle
from moec.artifact.manifest import Manifest
from moec.runtime.dtypes import TORCH_DTYPES
from moec.runtime.native import Kernel
from tests.bits import same_bits
from tests.fuzz.bounds import ELEMENT, INT8_ROWS, WHOLE, exact, require_close, wanted
from tests.fuzz.tensors import Named, inputs
from tests.guarded import guarded, guarded_copy

THREADS = ((2, 3), (4, 7), (2, 33))


@dataclass(frozen=True)
class Packed:
    """Kernels with packed weights, and the weights as they were given."""

    kernel: Kernel
    packed: torch.Tensor
    given: Named

    @property
    def manifest(self) -> Manifest:
        return self.kernel.library.manifest

    def __call__(self, tensors: Named, threads: int = 1, garbage: int = 0xFF, counted: bool = True) -> torch.Tensor:
        """y, from memory that holds garbage and may not be left."""
        tokens = len(tensors["x"])
        given = [guarded_copy(tensors[one.name]) for one in self.manifest.inputs]
        room = guarded((self.kernel.workspace_bytes(tokens, threads),), torch.uint8, garbage, alignment=64)
        ((row, dtype),) = self.kernel.outputs
        out = guarded((tokens, *row), dtype, garbage)
        statistics = [guarded(one.row, torch.int32, garbage) for one in self.manifest.statistics] if counted else []
        self.kernel.run(
            threads,
            self.packed,
            room.tensor,
            *given,
            out.tensor,
            *((one.tensor for one in statistics) if counted else self.kernel.unobserved),
        )
        assert all(one.intact for one in (room, out, *statistics)), "something was written beside a tensor"
        assert all(same_bits(now, tensors[one.name]) for now, one in zip(given, self.manifest.inputs, strict=True))
        for one, counts in zip(self.manifest.statistics, statistics, strict=counted):
            assert bool((counts.tensor >= 0).all()), f"the statistic {one.name} is negative"
            assert int(counts.tensor.sum()) <= tokens * one.slots, f"the statistic {one.name} counts too much"
        return out.tensor.clone()

    def chosen(self, tensors: Named) -> list[int]:
        """How many slots of these tokens choose each of the routed experts, before any capacity."""
        tokens = len(tensors["x"])
        ((row, dtype),) = self.kernel.outputs
        counts = [torch.empty(one.row, dtype=torch.int32) for one in self.manifest.statistics]
        room = guarded((self.kernel.workspace_bytes(tokens, 1),), torch.uint8, alignment=64)
        given = [tensors[one.name] for one in self.manifest.inputs]
        self.kernel.run(1, self.packed, room.tensor, *given, torch.empty((tokens, *row), dtype=dtype), *counts)
        (found,) = (one for one, said in zip(counts, self.manifest.statistics, strict=True) if said.name == "chosen")
        numbers: list[int] = found.tolist()
        return numbers


def pack(kernel: Kernel, given: Named) -> Packed:
    """Pack these weights, and see that they come back."""
    manifest = kernel.library.manifest
    packed = guarded((int(kernel.call("packed_bytes")),), torch.uint8, 0, alignment=64)
    for index, weight in enumerate(manifest.parameters):
        kernel.call("pack", index, packed.tensor, guarded_copy(given[weight.name]))
    assert packed.intact, "`pack` wrote beside the packed weights"
    made = {
        name
        for one in (manifest.quantised.stored if manifest.quantised else ())
        if not one.scales
        for name in one.weights
    }
    for index, weight in enumerate(manifest.parameters):
        back = guarded(weight.shape, TORCH_DTYPES[weight.dtype])
        kernel.call("unpack", index, packed.tensor, back.tensor)
        assert back.intact, f"`unpack` of {weight.name} wrote beside the tensor"
        if weight.name not in made:
            assert same_bits(back.tensor, given[weight.name]), f"{weight.name} does not come back"
    return Packed(kernel, packed.tensor, given)


def limits(manifest: Manifest) -> tuple[float, float]:
    """What an element, and what the whole result, may be off by."""
    if manifest.quantised is not None and manifest.quantised.rows == "int8":
        return INT8_ROWS
    dtype = manifest.inputs[0].dtype
    return ELEMENT[dtype], WHOLE[dtype]


def check(
    layer: Packed,
    graph: ir.Module,
    tokens: int,
    routing: str,
    seed: int,
    same_as: Callable[[Named], torch.Tensor] | None,
) -> None:
    """Compare a call with the oracle, with other calls, and, where `same_as` is given, with that layer's bits."""
    generator = torch.Generator().manual_seed(seed)
    tensors = inputs(layer.manifest, tokens, routing, generator)
    arrays = {name: exact(tensor) for name, tensor in {**layer.given, **tensors}.items()}
    want = wanted(lambda these: oracle.run(graph, these)["y"], arrays, seed)
    y = layer(tensors)
    what = f"{layer.kernel.variant}, {tokens} tokens, {routing}"
    require_close(y, want, *limits(layer.manifest), what)
    promises = layer.manifest.guarantees
    some, more = THREADS[seed % len(THREADS)]
    assert same_bits(layer(tensors, some, 0x3C), y), f"{what}: other bits with {some} threads, or other garbage"
    assert same_bits(layer(tensors, more, 0x00, counted=False), y), f"{what}: other bits, {more} threads, uncounted"
    if same_as is not None:
        assert same_bits(same_as(tensors), y), f"{what}: other bits than the layer has"
    if tokens and promises.batch_invariant:
        _batches(layer, tensors, y, generator, what)
    if tokens and promises.isolated:
        _poisoned(layer, graph, tensors, y, generator, what)


def _batches(layer: Packed, tensors: Named, y: torch.Tensor, generator: torch.Generator, what: str) -> None:
    tokens = len(y)
    order = torch.randperm(tokens, generator=generator)
    cuts = [torch.arange(tokens)[at : at + size] for at, size in ((0, 1), (tokens // 2, 2), (tokens // 3, 7), (1, 40))]
    for rows in (order, *cuts, torch.cat([order, order])):
        part = layer({name: tensor[rows] for name, tensor in tensors.items()}, 1 + len(rows) % 2)
        assert same_bits(part, y[rows]), f"{what}: other bits in a batch of {len(rows)}"


def _poisoned(
    layer: Packed, graph: ir.Module, tensors: Named, y: torch.Tensor, generator: torch.Generator, what: str
) -> None:
    """Tokens with NaN and infinity leave others alone, and become what the oracle makes of NaN."""
    tokens = len(y)
    nan = int(torch.randint(tokens, (), generator=generator))
    infinite = int(torch.randint(tokens, (), generator=generator))
    dirty = {**tensors, "x": tensors["x"].clone()}
    dirty["x"][infinite, :2] = float("inf")
    dirty["x"][nan, -1] = float("nan")
    found = layer(dirty, 2)
    others = [t for t in range(tokens) if t not in (nan, infinite)]
    assert same_bits(found[others], y[others]), f"{what}: a token with NaN or infinity changes others"
    rows = {name: exact(tensor[nan : nan + 1]) for name, tensor in dirty.items()}
    want = oracle.run(graph, {**{name: exact(tensor) for name, tensor in layer.given.items()}, **rows})["y"]
    assert (np.isnan(exact(found[nan : nan + 1])) == np.isnan(want)).all(), (
        f"{what}: NaN of a token is lost, or too much"
    )
