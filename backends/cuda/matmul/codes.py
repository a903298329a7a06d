"""Weights that are kept as codes with scales: which of them kernels can multiply, and how they take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cuda import expressions
from moec.backends.cuda.kernel import Argument, TensorPointer
from moec.backends.cuda.shares import first_of
from moec.dialect.formats import FORMATS, format_of

_BYTE = 8
_CHUNK = 32
"""Inputs that a kernel multiplies at a time: a scale must be that of so many, or of a multiple."""


@dataclass(frozen=True)
class Codes:
    """How the weights of a product are kept.

    format  its name; small codes share bytes, and scales of groups lie in rows of columns (`moec.artifact.cuda`)
    group   inputs that have a scale; None: all of a channel, by whose scale sums are multiplied in the end
    scale   element type of the scales
    codes   of each weight: tensor<ExNxKx(i8|f8E4M3FN)>
    scales  of each weight: tensor<ExNxG>
    """

    format: str
    group: int | None
    scale: str
    codes: tuple[ir.Value, ...]
    scales: tuple[ir.Value, ...]

    @property
    def bits(self) -> int:
        """Of a code in the device's memory."""
        return FORMATS[self.format].bits

    @property
    def code_type(self) -> str:
        """The C++ type of a code."""
        if self.bits < _BYTE:
            return f"moec::Packed<{self.bits}, {-FORMATS[self.format].lowest}>"
        return expressions.MEMORY[FORMATS[self.format].element]

    @property
    def weight_type(self) -> str:
        """The C++ type of a weight with its scales."""
        return f"moec::Coded<{self.code_type}, {self.scale_type}>"

    @property
    def scale_type(self) -> str:
        """The C++ type of a scale."""
        return expressions.MEMORY[self.scale]

    @property
    def scale_bytes(self) -> int:
        """Of a scale."""
        return 2 if self.scale == "bf16" else 4

    @property
    def chunk(self) -> int:
        """Inputs that may have a scale in a stage: the most that groups are multiples of."""
        return next(size for size in (128, 64, _CHUNK) if self.group is None or self.group % size == 0)

    def scale_rows(self, depth: int, most: int) -> int:
        """How many scales of groups come with `depth` codes of a column, each of `most` inputs at most."""
        return 0 if self.group is None else depth // min(self.chunk, depth, most)

    def parameters(self) -> tuple[list[str], list[Argument], str]:
        """A kernel's parameters for all weights, their arguments, and the values of an array of `weight_type`."""
        code, scale, count = self.code_type, self.scale_type, range(len(self.codes))
        parameters = [f"const {code}* codes{n}" for n in count] + [f"const {scale}* scales{n}" for n in count]
        arguments: list[Argument] = [TensorPointer(one, f"const {code}*") for one in self.codes]
        arguments += [TensorPointer(one, f"const {scale}*") for one in self.scales]
        return parameters, arguments, ", ".join(f"{{codes{n}, scales{n}}}" for n in count)


def codes_of(op: ir.Operation, weights: Sequence[ir.Value]) -> Codes | None:
    """How the weights of a product are kept; None: as floats.

    Raises Unsupported where they are kept in different ways, or with scales for groups that no kernel has.
    """
    formats = {format_of(weight) for weight in weights}
    if len(formats) > 1:
        raise unsupported("cuda", op, "weights that are stored in different formats in one product")
    (found,) = formats
    if found is None:
        return None
    kept = [weight.owner.operation.operands for weight in weights]
    group = None
    if found.groups > 1:
        group = ir.RankedTensorType(kept[0][0].type).get_dim_size(2) // found.groups
        text = f"weights as {found.name} with a scale for {group} inputs"
        if group % _CHUNK:
            raise unsupported("cuda", op, text, "write `group = 32`, or `per = channel`")
    codes, scales = tuple(codes for codes, _ in kept), tuple(scales for _, scales in kept)
    return Codes(found.name, group, found.scale, codes, scales)


def quantised_here(codes: ir.Value) -> bool:
    """Whether the layer makes these codes of the weights that it is given, so that their layout is its own."""
    whole, _ = first_of(codes)
    return not isinstance(whole.owner, ir.Block) and whole.owner.operation.name == "moe.quantize"
