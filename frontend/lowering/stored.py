"""A group's parameters as the row program of some of its experts finds them: sliced, stacked, dequantised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch_mlir import ir
from torch_mlir.dialects import tensor

from moec.dialect import DequantizeOp, QuantizeOp
from moec.frontend.lowering import emit
from moec.frontend.model import Experts, Format, Subset


def parameters(group: Experts, subset: Subset, arguments: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
    """The tensors of a subset by their names in the group, its experts stacked; `arguments` are the layer's."""
    prefix = f"{group.name}."
    mine = {name.removeprefix(prefix): value for name, value in arguments.items() if name.startswith(prefix)}
    taken = {name: _experts(value, subset.numbers, group.count) for name, value in mine.items()}
    if subset.format is None:
        return taken
    return {
        name: _dequantised(name, taken, subset.format) if name in group.linears else value
        for name, value in taken.items()
    }


def _dequantised(name: str, taken: Mapping[str, ir.Value], format: Format) -> ir.Value:
    weights = taken[name]
    experts, columns, inner = emit.shape_of(weights)
    groups = inner // format.group if format.group else 1
    codes_name = ir.StringAttr.get(format.codes)
    if format.given:
        codes, scales = weights, emit.reshape(taken[_scale(name)], (experts, columns, groups))
    else:
        made = QuantizeOp(
            weights,
            codes_name,
            emit.tensor_type((experts, columns, inner), "i8"),
            emit.tensor_type((experts, columns, groups), format.scale.value),
        )
        codes, scales = made.codes, made.scales
    return DequantizeOp(codes, scales, codes_name, emit.tensor_type((experts, columns, inner), "f32")).results[0]


def _scale(weight: str) -> str:
    return weight.removesuffix("weight") + "scale"


def _experts(whole: ir.Value, numbers: Sequence[int], count: int) -> ir.Value:
    """The slices of some experts, in order."""
    if len(numbers) == count:
        return whole
    parts = [_slice(whole, first, last) for first, last in _runs(numbers)]
    if len(parts) == 1:
        return parts[0]
    type_ = ir.RankedTensorType.get([len(numbers), *emit.shape_of(whole)[1:]], emit.element_of(whole))
    return tensor.concat(type_, 0, parts)


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Neighbours put together: (first, last), both included."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _slice(whole: ir.Value, first: int, last: int) -> ir.Value:
    rest = emit.shape_of(whole)[1:]
    sizes = [last - first + 1, *rest]
    type_ = ir.RankedTensorType.get(sizes, emit.element_of(whole))
    offsets = [first, *[0] * len(rest)]
    return tensor.ExtractSliceOp(type_, whole, [], [], [], offsets, sizes, [1] * len(sizes)).result
