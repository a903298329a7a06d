"""Some experts of a group, apart from the others: their slices of parameters, their choices, their codes.

The frontend lowers the subsets of a file with these, and passes take a layer apart with them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch_mlir import ir
from torch_mlir.dialects import arith, tensor

from moec.dialect.formats import element_of
from moec.dialect.graph import RouteOp
from moec.dialect.quantised import DequantizeOp, QuantizeOp
from moec.dialect.rows import RowOp, TakeOp, YieldChoiceOp


def take_experts(parameter: ir.Value, places: Sequence[int]) -> ir.Value:
    """Some experts of a parameter, in the order of their places, which ascend: slices that packing resolves."""
    type_ = ir.RankedTensorType(parameter.type)
    count, *rest = type_.shape
    if list(places) == list(range(count)):
        return parameter
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][1] == place:
            runs[-1][1] = place + 1
        else:
            runs.append([place, place + 1])
    slices = [_slice(parameter, begin, end) for begin, end in runs]
    if len(slices) == 1:
        return slices[0]
    return tensor.concat(ir.RankedTensorType.get([len(places), *rest], type_.element_type), 0, slices)


def _slice(parameter: ir.Value, begin: int, end: int) -> ir.Value:
    type_ = ir.RankedTensorType(parameter.type)
    rest = list(type_.shape)[1:]
    sizes, offsets = [end - begin, *rest], [begin, *[0] * len(rest)]
    result = ir.RankedTensorType.get(sizes, type_.element_type)
    return tensor.ExtractSliceOp(result, parameter, [], [], [], offsets, sizes, [1] * len(sizes)).result


def renumber(index: ir.Value, weight: ir.Value, numbers: Sequence[int], count: int) -> ir.Value:
    """The choices, among `count` experts, of those with `numbers` under their places among these; other slots empty.

    A table holds each expert's place plus one, 0 for the others: `moe.take` gives 0 for an empty slot, too.
    """
    table = np.zeros(count, np.int32)
    table[list(numbers)] = np.arange(1, len(numbers) + 1, dtype=np.int32)
    route = RouteOp(index, index.type, weight.type)
    block = route.operation.regions[0].blocks.append(_row_type(index))
    with ir.InsertionPoint(block):
        (row,) = block.arguments
        found = TakeOp(_constant(table), row, row.type).out
        mine = arith.subi(found, _constant(np.ones(list(row.type.shape), np.int32)))
        YieldChoiceOp(mine, RowOp(weight, _row_type(weight)).row)
    return route.index


def renumbered(index: ir.Value) -> tuple[tuple[int, ...], ir.Value] | None:
    """The `numbers` and the `index` that `renumber` was given; None where the index is none of its results."""
    router = None if isinstance(index, ir.BlockArgument) else index.owner.operation
    if router is None or router.name != "moe.route":
        return None
    block = router.regions[0].blocks[0]
    program = {op.operation.name: op.operation for op in block.operations if op.operation.name != "arith.constant"}
    if set(program) != {"moe.take", "arith.subi", "moe.row", "moe.yield_choice"}:
        return None
    take, less = program["moe.take"], program["arith.subi"]
    table, ones = _elements(take.operands[0]), _elements(less.operands[1])
    if table is None or ones is None or (ones != 1).any() or take.operands[1] != block.arguments[0]:
        return None
    if less.operands[0] != take.results[0] or program["moe.yield_choice"].operands[0] != less.results[0]:
        return None
    return tuple(int(n) for n in np.argsort(table, kind="stable") if table[n] > 0), router.operands[0]


def _elements(value: ir.Value) -> NDArray[np.int32] | None:
    """Those of a constant."""
    owner = None if isinstance(value, ir.BlockArgument) else value.owner.operation
    if owner is None or owner.name != "arith.constant":
        return None
    return np.array(ir.DenseElementsAttr(owner.attributes["value"]))


def quantized(weights: ir.Value, format: str, group: int | None, scale: str) -> ir.Value:
    """tensor<ExNxK> as codes of `format` times scales of the element type `scale`, one for `group` inputs each.

    group: divides K; None: one scale a channel.
    """
    experts, columns, inner = ir.RankedTensorType(weights.type).shape
    codes = ir.RankedTensorType.get([experts, columns, inner], element_of(format))
    scales = ir.RankedTensorType.get([experts, columns, inner // group if group else 1], ir.Type.parse(scale))
    name = ir.StringAttr.get(format)
    made = QuantizeOp(weights, name, codes, scales)
    return dequantized(made.codes, made.scales, format)


def dequantized(codes: ir.Value, scales: ir.Value, format: str) -> ir.Value:
    """Codes tensor<ExNxKx(i8|f8E4M3FN)> times scales tensor<ExNxG>, f32."""
    whole = ir.RankedTensorType.get(list(ir.RankedTensorType(codes.type).shape), ir.F32Type.get())
    return DequantizeOp(codes, scales, ir.StringAttr.get(format), whole).weights


def _row_type(whole: ir.Value) -> ir.RankedTensorType:
    type_ = ir.RankedTensorType(whole.type)
    return ir.RankedTensorType.get(list(type_.shape)[1:], type_.element_type)


def _constant(values: NDArray[np.int32]) -> ir.Value:
    attribute = ir.DenseElementsAttr.get(values)
    return ir.Operation.create("arith.constant", [attribute.type], [], {"value": attribute}).result
