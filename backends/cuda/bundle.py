"""All functions of a layer on one architecture: the layer itself, and those that train it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch_mlir import ir

from moec.backends.cpu.layer import Layer, prepare
from moec.backends.cpu.parameters import PARAMETERS
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.fewer_launches import with_fewer_launches
from moec.backends.cuda.kept import Kept, kept
from moec.backends.cuda.kernel import Kernel
from moec.backends.cuda.program import Program, program
from moec.backends.cuda.stacks import all_stacks


@dataclass(frozen=True)
class Bundle:
    """What one architecture runs: its kernels make one cubin.

    module    what the programs' functions are part of, kept because the values of a module end with it
    tensors   of the layer on a device, by the numbers of which stacks are made
    programs  the layer itself first
    """

    arch: Arch
    module: ir.Module
    tensors: tuple[Kept, ...]
    programs: tuple[Program, ...]

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Those of all programs, by their numbers."""
        return tuple(kernel for one in self.programs for kernel in one.kernels)


def bundles(module: ir.Module, archs: Sequence[Arch]) -> tuple[Bundle, ...]:
    """One for each architecture.  Raises Unsupported for what one of them has no kernels for."""
    prepared, functions = prepare(with_fewer_launches(module))
    itself, *training = functions
    layers = [itself, *map(_split, training)]
    tensors = kept(itself)
    drafts = [[program(layer, tensors, arch) for layer in layers] for arch in archs]
    sizes = [tensor.bytes for tensor in tensors]
    stacks = all_stacks((one.stacks for draft in drafts for one in draft), sizes, itself.function)
    made = []
    for arch, draft in zip(archs, drafts, strict=True):
        settled, first = [], 0
        for one in draft:
            settled.append(one.settled(stacks, first))
            first += len(one.kernels)
        made.append(Bundle(arch, prepared, tensors, tuple(settled)))
    return tuple(made)


def _split(layer: Layer) -> Layer:
    """A function that trains the layer, with its weights apart from what a call brings."""
    weights = tuple(tensor for tensor in layer.inputs if tensor.role in PARAMETERS)
    brought = tuple(tensor for tensor in layer.inputs if tensor.role not in PARAMETERS)
    return replace(layer, inputs=brought, parameters=weights)
