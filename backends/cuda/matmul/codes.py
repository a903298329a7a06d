"""Weights that are kept as codes with scales: which of them kernels can multiply, and how they take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cuda import expressions
from moec.backends.cuda.kernel import Argument, TensorPointer
from moec.dialect.formats import FORMATS, format_of


@dataclass(frozen=True)
class Codes:
    """How the weights of a product are kept.

    format  its name
    codes   of each weight: tensor<ExNxKx(i8|f8E4M3FN)>, a byte each
    scales  of each weight: tensor<ExNx1x(f32|bf16)>, by which the sums of a channel are multiplied
    """

    format: str
    codes: tuple[ir.Value, ...]
    scales: tuple[ir.Value, ...]

    @property
    def weight_type(self) -> str:
        """The C++ type of a weight with its scales."""
        return f"moec::Coded<{self.code_type}, {self.scale_type}>"

    @property
    def code_type(self) -> str:
        """The C++ type of a code."""
        return expressions.MEMORY[FORMATS[self.format].element]

    @property
    def scale_type(self) -> str:
        """The C++ type of a scale."""
        return expressions.MEMORY[expressions.element_of(self.scales[0].type)]

    def parameters(self) -> tuple[list[str], list[Argument], str]:
        """A kernel's parameters for all weights, their arguments, and the values of an array of `weight_type`."""
        code, scale, count = self.code_type, self.scale_type, range(len(self.codes))
        parameters = [f"const {code}* codes{n}" for n in count] + [f"const {scale}* scales{n}" for n in count]
        arguments: list[Argument] = [TensorPointer(one, f"const {code}*") for one in self.codes]
        arguments += [TensorPointer(one, f"const {scale}*") for one in self.scales]
        return parameters, arguments, ", ".join(f"{{codes{n}, scales{n}}}" for n in count)


def codes_of(op: ir.Operation, weights: Sequence[ir.Value]) -> Codes | None:
    """How the weights of a product are kept; None: as floats.

    Raises Unsupported where they are kept in different ways, or with scales for groups of inputs.
    """
    formats = {format_of(weight) for weight in weights}
    if len(formats) > 1:
        raise unsupported("cuda", op, "weights that are stored in different formats in one product")
    (found,) = formats
    if found is None:
        return None
    if found.groups > 1:
        text = f"weights as {found.name} with a scale for each group of inputs"
        raise unsupported("cuda", op, text, "write `per = channel`, or compile the layer for `cpu`")
    kept = [weight.owner.operation.operands for weight in weights]
    return Codes(found.name, tuple(codes for codes, _ in kept), tuple(scales for _, scales in kept))
