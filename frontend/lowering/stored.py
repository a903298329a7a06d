"""A group's parameters as the row program of some of its experts finds them: sliced, stacked, dequantised."""

from __future__ import annotations

from collections.abc import Mapping

from torch_mlir import ir

from moec.dialect.subsets import dequantized, quantized, take_experts
from moec.frontend.lowering import emit
from moec.frontend.model import Experts, Format, Subset


def parameters(group: Experts, subset: Subset, arguments: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
    """The tensors of a subset by their names in the group, its experts stacked; `arguments` are the layer's."""
    prefix = f"{group.name}."
    mine = {name.removeprefix(prefix): value for name, value in arguments.items() if name.startswith(prefix)}
    taken = {name: take_experts(value, subset.numbers) for name, value in mine.items()}
    if subset.format is None:
        return taken
    return {
        name: _dequantised(name, taken, subset.format) if name in group.linears else value
        for name, value in taken.items()
    }


def _dequantised(name: str, taken: Mapping[str, ir.Value], format: Format) -> ir.Value:
    weights = taken[name]
    if not format.given:
        return quantized(weights, format.codes, format.group, format.scale.value)
    experts, columns, inner = emit.shape_of(weights)
    groups = inner // format.group if format.group else 1
    return dequantized(weights, emit.reshape(taken[_scale(name)], (experts, columns, groups)), format.codes)


def _scale(weight: str) -> str:
    return weight.removesuffix("weight") + "scale"
