"""The compute tile's buffers and the weights that it knows: what loader, control, lanes and estimates agree on."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from moec.fixed.arithmetic import LOGIT_BITS, MULTIPLIER_BITS
from moec.fixed.design import Design, Memory
from moec.fixed.layout import RECORD_BITS, GateSection, layout
from moec.fixed.limits import BIAS_BITS
from moec.fixed.model import geometry
from moec.fixed.spec import Activation, Expert

SHIFT_BITS = 6

SHALLOW = 64
"""Most words of a memory that is made of the logic's own tables: a block would be filled to an eighth."""


def address_bits(depth: int) -> int:
    return max(1, (depth - 1).bit_length())


@dataclass(frozen=True)
class Shape:
    """A memory of `words` words of `write` bits that is read in words of `read` bits; one is a multiple of the other.

    It is made of `many` memories of `depth` words of `width` bits side by side.
    """

    words: int
    write: int
    read: int

    @property
    def many(self) -> int:
        return max(1, self.read // self.write)

    @property
    def depth(self) -> int:
        return ceil(self.words / self.many)

    @property
    def width(self) -> int:
        return self.write

    @property
    def read_words(self) -> int:
        return self.words * self.write // self.read if self.write > self.read else self.depth


def memory_for(shape: Shape) -> Memory:
    """What a memory is made of that the design does not say it of."""
    return Memory.LUTRAM if shape.depth <= SHALLOW else Memory.BRAM


@dataclass(frozen=True)
class Kind:
    """Weights that the tile knows how to use: of a routed expert, a shared one, or a gate (whose `expert` is None).

    number      what stands beside the first beat of such weights
    scalars     whether they begin with a beat of scalars
    selection   beats that are skipped
    first, down  beats of channels and of tiles of what is multiplied first and second
    """

    number: int
    expert: Expert | None
    scalars: bool
    selection: int
    first: tuple[int, int]
    down: tuple[int, int]


TABLE = 0
"""What stands beside the beats of the activation's table; kinds are numbered from 1 on."""


def kinds(design: Design) -> tuple[Kind, ...]:
    """Routed experts, shared experts if there are any, and the gate where the array multiplies weights like its."""
    layer, where = design.layer, layout(design)
    found: list[Kind] = []
    for expert, section in ((layer.routed, where.expert), (layer.common, where.common)):
        if expert is not None and section is not None:
            first = (section.channels.beats, section.tiles.beats)
            down = (section.down_channels.beats, section.down_tiles.beats)
            found.append(Kind(len(found) + 1, expert, True, 0, first, down))
    if geometry.routes(design):
        found.append(_gate(len(found) + 1, where.gate))
    return tuple(found)


def _gate(number: int, section: GateSection) -> Kind:
    return Kind(number, None, False, section.selection.beats, (section.channels.beats, section.tiles.beats), (0, 0))


def segments(kind: Kind) -> list[tuple[str, int]]:
    """What a kind's beats are, in order, and how many; parts without beats are left out."""
    parts = [
        ("scalars", int(kind.scalars)),
        ("channels", kind.first[0]),
        ("selection", kind.selection),
        ("tiles", kind.first[1]),
        ("channels", kind.down[0]),
        ("tiles", kind.down[1]),
    ]
    return [(name, beats) for name, beats in parts if beats]


def record_bits(design: Design) -> int:
    """Bits of a channel's record that say something."""
    return MULTIPLIER_BITS + SHIFT_BITS + BIAS_BITS[design.layer.weights]


def weights(design: Design) -> Shape:
    """Both buffers of tiles."""
    words = max(kind.first[1] + kind.down[1] for kind in kinds(design))
    tile = design.inputs * design.outputs * design.layer.weights.bits
    beat = design.ports * design.port_bits
    return Shape(2 * ceil(words / max(1, tile // beat)) * max(1, tile // beat), beat, tile)


def channels(design: Design) -> Shape:
    """Both buffers of records."""
    words = max(kind.first[0] + kind.down[0] for kind in kinds(design))
    many = design.ports * design.port_bits // RECORD_BITS
    bits, lanes = record_bits(design), geometry.lanes(design)
    aligned = ceil(words / max(1, lanes // many)) * max(1, lanes // many)
    return Shape(2 * aligned, many * bits, lanes * bits)


def second(shape: Shape, beats: int) -> int:
    """Where what comes after `beats` beats is read: so many words of the reader."""
    return beats * shape.write // shape.read


def rows(design: Design) -> Shape:
    """The rows of all tokens."""
    words = design.tokens * layout(design).input_words
    return Shape(words, design.port_bits, design.inputs * design.layer.rows)


def row_stride(design: Design) -> int:
    """Steps of the array from one token's row to the next one's."""
    return rows(design).read_words // design.tokens


def hidden(design: Design) -> Shape:
    """The hidden layer of one token."""
    lanes, bits = geometry.lanes(design), design.layer.rows
    codes = 0
    for expert in geometry.experts(design):
        for multiple in (design.inputs, design.outputs):
            codes = max(codes, ceil(expert.hidden / multiple) * multiple)
    most = max(lanes, design.inputs)
    return Shape(ceil(codes / most) * most // lanes, lanes * bits, design.inputs * bits)


def sums(design: Design) -> Shape:
    """The weighted sums of all tokens."""
    bits = geometry.lanes(design) * geometry.sum_bits(design)
    return Shape(design.tokens * result_stride(design), bits, bits)


def result_stride(design: Design) -> int:
    """Groups of sums of a token."""
    return ceil(design.layer.width / design.outputs) * geometry.groups(design)


def logits(design: Design) -> Shape:
    """The logits of all tokens, each padded to whole tiles."""
    lanes, tiles = geometry.lanes(design), geometry.router(design).tiles
    return Shape(design.tokens * tiles * geometry.groups(design), lanes * LOGIT_BITS, LOGIT_BITS)


def has_table(design: Design) -> bool:
    return design.layer.routed.activation is not Activation.RELU
