"""What a module says about its quantised weights: which are kept as codes, of which experts, in which format."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch_mlir import ir

from moec.artifact.quantised import Quantised, Stored
from moec.dialect.formats import format_of

_SAME_ELEMENTS = ("tensor.expand_shape", "tensor.collapse_shape")


@dataclass(frozen=True)
class _Part:
    """Some experts of a parameter."""

    parameter: ir.BlockArgument
    experts: tuple[int, ...]


def quantised(function: ir.Operation) -> Quantised | None:
    """The record of a layer's function at graph or kernel level; None where nothing is quantised."""
    names = [str(ir.StringAttr(a["moe.name"]).value) for a in function.attributes["arg_attrs"]]
    stored: dict[Stored, Stored] = {}
    for op in _walk(function):
        if op.name == "moe.dequantize":
            for one in _stored(op, names):
                alike = replace(one, weights=(), scales=("",) * bool(one.scales))
                known = stored.get(alike)
                both = one if known is None else _joined(known, one)
                stored[alike] = both
    if not stored:
        return None
    int8 = any(op.name in ("moe.quantize_row", "moe.quantize_rows") for op in _walk(function))
    return Quantised("int8" if int8 else "float", tuple(stored.values()))


def _joined(known: Stored, more: Stored) -> Stored:
    new = [i for i, name in enumerate(more.weights) if name not in known.weights]
    weights = (*known.weights, *(more.weights[i] for i in new))
    scales = (*known.scales, *(more.scales[i] for i in new if more.scales))
    return replace(known, weights=weights, scales=scales)


def _stored(op: ir.Operation, names: list[str]) -> Iterator[Stored]:
    """One record for each parameter that the weights of a `moe.dequantize` are made of."""
    how = format_of(op.results[0])
    assert how is not None
    codes, scales = op.operands
    source = None if isinstance(codes, ir.BlockArgument) else codes.owner.operation
    made = source is not None and source.name == "moe.quantize"
    parts = _parts(source.operands[0] if made and source is not None else codes)
    given = [] if made else [names[part.parameter.arg_number] for part in _parts(scales)]
    inner = ir.RankedTensorType(codes.type).get_dim_size(2)
    for i, part in enumerate(parts):
        count = ir.RankedTensorType(part.parameter.type).get_dim_size(0)
        yield Stored(
            weights=(names[part.parameter.arg_number],),
            scales=(given[i],) if given else (),
            experts=None if len(part.experts) == count else part.experts,
            format=how.name,
            group=inner // how.groups if how.groups > 1 else None,
            scale=how.scale,
        )


def _parts(value: ir.Value) -> list[_Part]:
    """The parameters that a tensor of experts is stacked from; neighbouring parts of one parameter are one."""
    if isinstance(value, ir.BlockArgument):
        count = ir.RankedTensorType(value.type).get_dim_size(0)
        return [_Part(value, tuple(range(count)))]
    op = value.owner.operation
    if op.name in _SAME_ELEMENTS:
        return _parts(op.operands[0])
    if op.name == "tensor.extract_slice":
        first = ir.DenseI64ArrayAttr(op.attributes["static_offsets"])[0]
        count = ir.RankedTensorType(value.type).get_dim_size(0)
        (whole,) = _parts(op.operands[0])
        return [_Part(whole.parameter, whole.experts[first : first + count])]
    parts: list[_Part] = []
    for operand in op.operands:  # tensor.concat
        for part in _parts(operand):
            if parts and parts[-1].parameter == part.parameter:
                parts[-1] = _Part(part.parameter, (*parts[-1].experts, *part.experts))
            else:
                parts.append(part)
    return parts


def _walk(op: ir.Operation) -> Iterator[ir.Operation]:
    yield op
    for region in op.regions:
        for block in region.blocks:
            for inner in block.operations:
                yield from _walk(inner.operation)
