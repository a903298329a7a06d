"""How many bytes weights take, without what packing adds."""

from __future__ import annotations

from math import prod

from moec.formats import FORMATS
from moec.frontend.model import Experts, Format, Layer
from moec.frontend.units import BYTES


def group_bytes(layer: Layer, group: Experts) -> float:
    """All experts of a group."""
    if not group.subsets:
        return group.count * expert_bytes(layer, group, group.format)
    return sum(len(subset.numbers) * expert_bytes(layer, group, subset.format) for subset in group.subsets)


def expert_bytes(layer: Layer, group: Experts, format: Format | None) -> float:
    """One expert of a group that is stored in this format."""
    total = 0.0
    for tensor in layer.parameters:
        owner, _, name = tensor.name.partition(".")
        if owner != group.name:
            continue
        shape = [size or 1 for size in tensor.shape[1:]]
        elements = prod(shape)
        if format is None or name not in group.linears:
            total += elements * tensor.dtype.nbytes
        else:
            total += elements * FORMATS[format.codes].bits / 8
            if not format.given:  # else scales are tensors of their own
                total += elements // (format.group or shape[1]) * format.scale.nbytes
    return total


def router_bytes(layer: Layer) -> float:
    """What is neither routed nor shared experts."""
    own = {layer.routed.name, *(group.name for group in layer.shared)}
    others = (tensor for tensor in layer.parameters if tensor.name.partition(".")[0] not in own)
    return sum(prod(size or 1 for size in tensor.shape) * tensor.dtype.nbytes for tensor in others)


def shown(nbytes: float) -> str:
    """`1.5 GiB`."""
    for unit in ("GiB", "MiB", "KiB"):
        if nbytes >= BYTES[unit]:
            return f"{nbytes / BYTES[unit]:.1f} {unit}"
    return f"{nbytes:,.0f} bytes"
