"""A layout's mesh and cuts become operations of MLIR's `shard` dialect, on the layer as it stands."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

from torch_mlir import ir

from moec.artifact.parallel import Parallel
from moec.dialect.functions import layer_function
from moec.passes.base import Pass, Remarks
from moec.passes.parallel import parallel
from moec.passes.pieces.hidden import find_hidden, parameter_axes
from moec.passes.pieces.parts import group_name
from moec.passes.rewriting import dims, operations, terminator


@dataclass(frozen=True)
class ShardLayout(Pass):
    """Adds the mesh as a `shard.grid`, and to every argument and output of the layer that is cut a `shard.shard`.

    Tokens are cut along their leading axis, parameters along the axis of experts (ep) and the hidden dimension (tp).  A
    module without `moe.parallel`, and one that has a grid, is left as it is.
    """

    name: ClassVar[str] = "shard-layout"

    def apply(self, module: ir.Module, remarks: Remarks) -> None:
        spread = parallel(module)
        if spread is None or any(op.operation.name == "shard.grid" for op in module.body.operations):
            return
        function = layer_function(module)
        mesh, hidden = spread.mesh, _hidden(spread, function)
        with ir.InsertionPoint.at_block_begin(module.body), function.location:
            shape = ir.DenseI64ArrayAttr.get(mesh.shape)
            ir.Operation.create("shard.grid", attributes={"sym_name": ir.StringAttr.get(mesh.name), "shape": shape})
        block = function.regions[0].blocks[0]
        with ir.InsertionPoint.at_block_begin(block), function.location:
            for argument, names in zip(block.arguments, function.attributes["arg_attrs"], strict=True):
                cut = _cut(spread, ir.DictAttr(names), dims(argument), hidden.get(argument, {}))
                if cut is not None:
                    uses = list(argument.uses)
                    sharded = _annotated(spread, argument, cut)
                    for use in uses:
                        use.owner.operation.operands[use.operand_number] = sharded
        end = terminator(block)
        with ir.InsertionPoint(end), end.location:
            for i, names in enumerate(function.attributes["res_attrs"]):
                if "moe.role" not in ir.DictAttr(names):
                    rank = ir.RankedTensorType(end.operands[i].type).rank
                    end.operands[i] = _annotated(spread, end.operands[i], Cut((spread.tokens, *[()] * (rank - 1))))
        said = ", ".join(f"{what} over {' * '.join(axes)}" for what, axes in _said(spread) if axes)
        remarks.add(self, f"mesh {mesh.name}: {said}", function.location)


@dataclass(frozen=True)
class Cut:
    """For each axis of a tensor the mesh axes that it is cut over, and where its parts begin and end, if uneven."""

    axes: tuple[tuple[str, ...], ...]
    ends: tuple[int, ...] = ()


def _hidden(spread: Parallel, function: ir.Operation) -> Mapping[ir.Value, Mapping[int, tuple[str, ...]]]:
    """The arguments whose hidden dimension is cut: along which axis, over which axes of the mesh."""
    cut = {one.experts: one.tp for one in (spread.routed, *spread.shared) if one.tp}
    if not cut:
        return {}
    found: dict[ir.Value, dict[int, tuple[str, ...]]] = {}
    for op in operations(function.regions[0].blocks[0], "moe.experts", "moe.shared"):
        program = op.operation.regions[0].blocks[0]
        axes = cut.get(group_name(program, function) or "")
        if axes:
            for parameter, axis in find_hidden(program).parameters.items():
                for argument, of_argument in parameter_axes(parameter, axis).items():
                    found[argument] = {of_argument: axes}
    return found


def _cut(
    spread: Parallel, names: ir.DictAttr, shape: Sequence[int], hidden: Mapping[int, tuple[str, ...]]
) -> Cut | None:
    """How an argument is cut; None: every rank has all of it."""
    if str(ir.StringAttr(names["moe.role"]).value) == "input":
        return Cut((spread.tokens, *[()] * (len(shape) - 1)))
    group = str(ir.StringAttr(names["moe.name"]).value).partition(".")[0]
    axes = [hidden.get(axis, ()) for axis in range(len(shape))]
    if group != spread.routed.experts:
        return Cut(tuple(axes)) if hidden else None
    axes[0] = spread.routed.ep
    counts = spread.routed.counts
    if counts is None:
        return Cut(tuple(axes)) if any(axes) else None
    ends = [0, *accumulate(counts)]
    for axis, over in hidden.items():
        ways = spread.mesh.size(over)
        ends += [shape[axis] * i // ways for i in range(ways + 1)]
    return Cut(tuple(axes), tuple(ends))


def _annotated(spread: Parallel, value: ir.Value, cut: Cut) -> ir.Value:
    mesh = spread.mesh
    numbers = ", ".join(f"[{', '.join(str(mesh.names.index(axis)) for axis in axes)}]" for axes in cut.axes)
    attributes = {
        "grid": ir.FlatSymbolRefAttr.get(mesh.name),
        "split_axes": ir.Attribute.parse(f"#shard<axisarray[{numbers}]>"),
        "static_halo_sizes": ir.DenseI64ArrayAttr.get([]),
        "static_sharded_dims_offsets": ir.DenseI64ArrayAttr.get(cut.ends),
        "operandSegmentSizes": ir.DenseI32ArrayAttr.get([0, 0]),
    }
    type_ = ir.Type.parse("!shard.sharding")
    sharding = ir.Operation.create("shard.sharding", [type_], [], attributes).result
    return ir.Operation.create("shard.shard", [value.type], [value, sharding]).result


def _said(spread: Parallel) -> Iterator[tuple[str, Sequence[str]]]:
    yield "tokens", spread.tokens
    for one in (spread.routed, *spread.shared):
        yield f"{one.experts} as ep", one.ep
        yield f"{one.experts} as tp", one.tp
