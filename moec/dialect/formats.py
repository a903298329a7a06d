"""Which format a weights operand has."""

from dataclasses import dataclass

from torch_mlir import ir

from moec.formats import FORMATS as FORMATS


@dataclass(frozen=True)
class Format:
    """How weights are stored: the name of the codes, how many scales a channel has, their element type."""

    name: str
    groups: int
    scale: str


def element_of(name: str) -> ir.Type:
    """The element type of a tensor of codes of a format."""
    return ir.Type.parse(FORMATS[name].element)


def format_of(weights: ir.Value) -> Format | None:
    """The format of what `moe.dequantize` gives; None for other weights."""
    if isinstance(weights, ir.BlockArgument) or weights.owner.operation.name != "moe.dequantize":
        return None
    operation = weights.owner.operation
    scales = ir.RankedTensorType(operation.operands[1].type)
    name = ir.StringAttr(operation.attributes["format"]).value
    return Format(name, scales.get_dim_size(2), str(scales.element_type))
