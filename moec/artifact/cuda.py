"""What a manifest says of the code for CUDA devices that an artifact holds."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from moec.artifact.fields import Fields, InvalidManifest
from moec.artifact.quantised import Quantised
from moec.formats import FORMATS

if TYPE_CHECKING:
    from moec.artifact.manifest import Weight

_NAME = re.compile(r"sm_[0-9]{2,3}[a-z]?")
_MAX_ARCHITECTURES = 16
_MAX_STACKS = 4096
_MAX_PARAMETERS = 4096

LINE = 64
"""Codes of less than a byte come in lines of so many: what is missing of an input's last one is 0."""
_SCALES_TOGETHER = 8


@dataclass(frozen=True)
class Architecture:
    """An architecture that there are kernels for.

    name        as the compiler knows it, such as "sm_90a"
    capability  compute capability: 10 * major + minor
    exact       only devices of this capability run it; else later ones of the same major number do, too
    """

    name: str
    capability: int
    exact: bool

    def runs_on(self, capability: int) -> bool:
        """Whether a device of this compute capability (10 * major + minor) runs the kernels."""
        if self.exact:
            return capability == self.capability
        return self.capability <= capability < (self.capability // 10 + 1) * 10


@dataclass(frozen=True)
class Stack:
    """Numbers of tensors (`on_device`) that kernels read as one: they lie behind each other on their first axis."""

    parameters: tuple[int, ...]


@dataclass(frozen=True)
class Cuda:
    """The code for CUDA devices.

    architectures    in the order of the numbers that `cuda_architecture` gives
    stacks           what `cuda_run_bind` takes, in order; a parameter that is in none is not read
    deterministic    the same call on the same device gives the same bits
    batch_invariant  a token's bits do not depend on how many other tokens there are
    training         the layer can be trained there, too
    """

    architectures: tuple[Architecture, ...]
    stacks: tuple[Stack, ...]
    deterministic: bool
    batch_invariant: bool
    training: bool


def on_device(weights: Sequence[Weight], quantised: Quantised | None) -> list[Weight]:
    """What a CUDA device holds of a layer's weights, in the order of the numbers in `Stack`.

    Quantised ones are codes there, of their format's element type (`codes_shape`); scales (`scales_shape`) that are
    given are weights themselves.  Where the layer quantises some experts only, the weight is the `others`.  Behind all
    weights come, in the order of these, the codes of some experts and the scales that the layer makes: pairs in the
    order of their first experts.
    """
    if quantised is None:
        return list(weights)
    made = quantised.made_while_packing
    codes, owners = quantised.codes, quantised.owners
    shapes = {one.name: one.shape for one in weights}
    held, behind = [], []
    for one in weights:
        hows = made.get(one.name, ())
        whole = hows[0] if hows and hows[0].experts is None else codes.get(one.name)
        if whole is not None:
            held.append(replace(one, dtype=FORMATS[whole.format].element, shape=codes_shape(one.shape, whole.format)))
        elif hows:
            floats = others(one.shape[0], (how.experts for how in hows))
            held.append(replace(one, shape=(len(floats), *one.shape[1:])))
        elif one.name in owners:
            owner = owners[one.name]
            held.append(replace(one, shape=scales_shape(shapes[owner], codes[owner].group)))
        else:
            held.append(one)
        for how in hows:
            part = one.shape if how.experts is None else (len(how.experts), *one.shape[1:])
            if how.experts is not None:
                shape = codes_shape(part, how.format)
                behind.append(replace(one, name=codes_of(one.name), dtype=FORMATS[how.format].element, shape=shape))
            shape = scales_shape(part, how.group)
            behind.append(replace(one, name=scales_of(one.name), dtype=how.scale, shape=shape))
    return held + behind


BOUND_ALIGN = 128
"""What a layer's bound weights are aligned to, in bytes: as the driver's tensor maps are, which lie among them."""


def others(experts: int, taken: Iterable[Collection[int] | None]) -> tuple[int, ...]:
    """The experts, of so many, that no format takes, in order.

    taken  those that each format takes, by number; None: all
    """
    gone = {number for some in taken for number in (range(experts) if some is None else some)}
    return tuple(number for number in range(experts) if number not in gone)


def codes_shape(shape: tuple[int, ...], format: str) -> tuple[int, ...]:
    """Of the codes of weights (experts, out, in) on a device, as bytes: several codes share one where they are small.

    Lines of 64 codes then follow each other in a channel.  `moec/runtime/cuda/packed.py` says how they are packed.
    """
    experts, columns, inner = shape
    bits = FORMATS[format].bits
    return (experts, columns, inner if bits == 8 else -(-inner // LINE) * LINE * bits // 8)


def scales_shape(shape: tuple[int, ...], group: int | None) -> tuple[int, ...]:
    """Of the scales of weights (experts, out, in) on a device: those of groups lie in rows (experts, groups, out).

    Rows are as long as a multiple of 8.
    """
    experts, columns, inner = shape
    if group is None:
        return (experts, columns)
    return (experts, inner // group, -(-columns // _SCALES_TOGETHER) * _SCALES_TOGETHER)


def codes_of(name: str) -> str:
    """How the codes of some experts of a weight are called in messages."""
    return f"codes of {name}"


def scales_of(name: str) -> str:
    """How the scales of a weight that the layer quantises itself are called in messages."""
    return f"scales of {name}"


def read_cuda(fields: Fields) -> Cuda:
    """Raises InvalidManifest for what is malformed."""
    found = Cuda(
        tuple(_architecture(f) for f in fields.records("architectures", 1, _MAX_ARCHITECTURES)),
        tuple(_stack(f) for f in fields.records("stacks", 0, _MAX_STACKS)),
        fields.boolean("deterministic"),
        fields.boolean("batch_invariant"),
        fields.boolean("training"),
    )
    fields.finish()
    return found


def check_stacks(cuda: Cuda, weights: Sequence[Weight]) -> None:
    """Raises InvalidManifest unless every stack is of different parameters that fit behind each other.

    A parameter may be in one stack of several, and alone in another.
    """
    seen: dict[bool, set[int]] = {False: set(), True: set()}
    for number, stack in enumerate(cuda.stacks):
        where = f"cuda.stacks[{number}]"
        alike = seen[len(stack.parameters) > 1]
        if alike & set(stack.parameters) or len(set(stack.parameters)) < len(stack.parameters):
            raise InvalidManifest(f"{where} holds a parameter that is in a stack already")
        alike |= set(stack.parameters)
        if any(one >= len(weights) for one in stack.parameters):
            raise InvalidManifest(f"{where} names a parameter that there is none of")
        rows = {(weights[one].shape[1:], len(weights[one].shape), weights[one].dtype) for one in stack.parameters}
        if len(rows) > 1 or (len(stack.parameters) > 1 and not weights[stack.parameters[0]].shape):
            raise InvalidManifest(f"{where} holds parameters that cannot lie behind each other")


def _architecture(fields: Fields) -> Architecture:
    found = Architecture(fields.string("name", _NAME), fields.integer("capability", 10, 999), fields.boolean("exact"))
    fields.finish()
    return found


def _stack(fields: Fields) -> Stack:
    found = Stack(fields.integers("parameters", 0, _MAX_PARAMETERS, _MAX_PARAMETERS))
    fields.finish()
    if not found.parameters:
        raise InvalidManifest(f"{fields.path}.parameters is empty")
    return found
