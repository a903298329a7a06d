"""Packing of quantised weights into panels: of weights, which are quantised on the way, or of given codes and scales.

The codes of a channel pass through a buffer, one i8 an element, padded as the layout's steps are; from there they go to
the fields of registers where `decode` looks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch_mlir import ir

from moec.backends.cpu import quantise
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.channels import Channel, channels
from moec.backends.cpu.codes import CodePanels
from moec.backends.cpu.frame import Piece, Place, Region, copy_bytes
from moec.backends.cpu.packing import Experts, experts_of, named
from moec.backends.cpu.parameters import Part, parts
from moec.backends.cpu.values import Pointer, byte_width
from moec.dialect.formats import FORMATS, Format
from moec.formats import Codes

Visit = Callable[[Channel], None]


def region(op: Any, weights: Sequence[ir.Value], layout: CodePanels, format_: Format) -> Region:
    """The packed region of weights operands of `op`, all results of `moe.dequantize` of one format."""
    pieces: list[Piece] = []
    for operand, value in enumerate(weights):
        codes, scales = value.owner.operation.operands
        for part in parts(codes):
            experts = experts_of(op, part, layout.columns * layout.inner)
            pieces.append(_piece(layout, operand, part, experts, "codes" if part.quantize is None else format_.name))
        for part in parts(scales):
            experts = experts_of(op, part, layout.columns * layout.scale_groups)
            pieces.append(_piece(layout, operand, part, experts, "scales"))
    return Region(layout.bytes, tuple(pieces), layout)


def _piece(layout: CodePanels, operand: int, part: Part, experts: Experts, becomes: str) -> Piece:
    """becomes: "codes", "scales", or the format that weights are quantised to."""
    element = ir.RankedTensorType(part.parameter.type).element_type
    unit_bytes = part.count // experts.count * byte_width(element)
    kind = becomes if becomes in _GIVEN else f"weights_{element}"

    def some(count: int, name: str, b: Builder, packed: Pointer, tensor: Pointer) -> None:
        source = _Mover(replace(layout, experts=1), operand, name, becomes, str(element), unit_bytes)
        function = b.later(named(f"{name}_{kind}", operand, source), [b.ptr, b.ptr, b.i64], source)
        b.call(function, packed, tensor, b.index(count))

    def walk(name: str, b: Builder, packed: Pointer, tensor: Pointer) -> None:
        first = tensor.at(experts.source, unit_bytes)
        some(experts.count, name, b, packed.at(experts.first, layout.expert_bytes), first)

    place = Place(kind, operand, experts.source, experts.first, experts.count)
    return Piece(part.parameter, place, partial(walk, "pack"), partial(walk, "unpack"), partial(some, 1), unit_bytes)


@dataclass(frozen=True)
class _Mover:
    """What the function is written from that packs or unpacks any experts."""

    layout: CodePanels
    operand: int
    what: str
    """ "pack" or "unpack"."""
    becomes: str
    element: str
    """Type of the tensor's elements."""
    unit_bytes: int
    """Of the tensor, for an expert."""

    def write(self, b: Builder, arguments: Sequence[Any]) -> None:
        packed, tensor, count = arguments
        take, give = _GIVEN.get(self.becomes) or self._quantised()
        visit = take if self.what == "pack" else give
        bytes_ = self.unit_bytes // self.layout.columns
        for channel in channels(b, self.layout, self.operand, count, packed, tensor, bytes_):
            visit(channel)

    def _quantised(self) -> tuple[Visit, Visit]:
        rule = _Weights(self.layout, ir.Type.parse(self.element), FORMATS[self.becomes])
        return rule.take, rule.give


def _take_codes(channel: Channel) -> None:
    b, layout = channel.b, channel.layout
    with channel.real_or_zero(channel.codes, layout.padded_inner), b.for_(0, layout.scale_groups) as loop:
        source = channel.tensor.at(loop.index, layout.group)
        copy_bytes(b, channel.group(loop.index), source, layout.group)
    channel.put_codes()


def _give_codes(channel: Channel) -> None:
    b, layout = channel.b, channel.layout
    channel.get_codes()
    with b.if_(channel.real), b.for_(0, layout.scale_groups) as loop:
        copy_bytes(b, channel.tensor.at(loop.index, layout.group), channel.group(loop.index), layout.group)


def _take_scales(channel: Channel) -> None:
    bytes_ = channel.layout.scale_groups * byte_width(channel.scale_type)
    with channel.real_or_zero(channel.scales, bytes_):
        copy_bytes(channel.b, channel.scales, channel.tensor, bytes_)
    channel.put_scales()


def _give_scales(channel: Channel) -> None:
    channel.get_scales()
    with channel.b.if_(channel.real):
        bytes_ = channel.layout.scale_groups * byte_width(channel.scale_type)
        copy_bytes(channel.b, channel.tensor, channel.scales, bytes_)


_GIVEN: Mapping[str, tuple[Visit, Visit]] = {
    "codes": (_take_codes, _give_codes),
    "scales": (_take_scales, _give_scales),
}
"""What reads a channel of a tensor as it is and writes it into the panel, and the way back."""


@dataclass(frozen=True)
class _Weights:
    """Weights that become codes and scales; the way back gives code times scale, rounded to their type."""

    layout: CodePanels
    element: ir.Type
    rule: Codes

    def take(self, channel: Channel) -> None:
        b, layout = channel.b, self.layout
        bytes_ = layout.scale_groups * byte_width(channel.scale_type)
        with (
            channel.real_or_zero(channel.codes, layout.padded_inner),
            channel.real_or_zero(channel.scales, bytes_),
            b.for_(0, layout.scale_groups) as loop,
        ):
            source = channel.tensor.at(loop.index, layout.group * byte_width(self.element))
            run = quantise.Run(source, self.element, layout.group)
            divisor = self.rule.divisor
            top = quantise.largest(b, run) / float(divisor) if divisor else quantise.mean(b, run)
            scale = b.convert(top, channel.scale_type)
            channel.scales.at(loop.index, byte_width(channel.scale_type)).store(scale)
            quantise.codes(b, run, b.convert(scale, b.f32), self.rule, channel.group(loop.index), b.i8)
        channel.put_codes()
        channel.put_scales()

    def give(self, channel: Channel) -> None:
        b, layout = channel.b, self.layout
        channel.get_codes()
        channel.get_scales()
        with b.if_(channel.real), b.for_(0, layout.scale_groups) as loop:
            scale = channel.scales.at(loop.index, byte_width(channel.scale_type)).load(channel.scale_type)
            codes = channel.group(loop.index)
            target = channel.tensor.at(loop.index, layout.group * byte_width(self.element))
            with b.for_(0, layout.group) as inside:
                product = channel.number((codes + inside.index).load(b.i8)) * b.convert(scale, b.f32)
                target.at(inside.index, byte_width(self.element)).store(b.convert(product, self.element))
