"""What the `shard` operations of a layer say: along which axes its arguments are cut, into how many parts."""

from collections.abc import Mapping
from math import prod

from torch_mlir import ir

from moec.passes.rewriting import dims, function

Ways = Mapping[str, tuple[int, ...]]
"""For each argument by its name, into how many parts each of its axes is cut; one that is whole is not there."""


def read_sharding(module: ir.Module) -> Ways:
    """What the layer's arguments are cut into; the operations are taken away."""
    grids = [op.operation for op in module.body.operations if op.operation.name == "shard.grid"]
    sizes = {str(ir.StringAttr(op.attributes["sym_name"]).value): list(op.attributes["shape"]) for op in grids}
    layer = function(module)
    block = layer.regions[0].blocks[0]
    names = [str(ir.StringAttr(one["moe.name"]).value) for one in layer.attributes["arg_attrs"]]
    found = {}
    for op in [op.operation for op in block.operations if op.operation.name == "shard.shard"]:
        value, sharding = op.operands
        if isinstance(value, ir.BlockArgument):
            how = sharding.owner.operation
            grid = sizes[str(ir.FlatSymbolRefAttr(how.attributes["grid"]).value)]
            axes = _split_axes(how)
            ways = [prod(grid[axis] for axis in one) for one in axes]
            found[names[value.arg_number]] = (*ways, *[1] * (len(dims(value)) - len(ways)))
        op.results[0].replace_all_uses_with(value)
        op.erase()
    for op in [op.operation for op in block.operations if op.operation.name == "shard.sharding"]:
        op.erase()
    return found


def _split_axes(sharding: ir.Operation) -> list[list[int]]:
    """The grid's axes over which each axis of a tensor is cut; the attribute has no Python class of its own."""
    text = str(sharding.attributes["split_axes"])
    inner = text[text.index("[") + 1 : text.rindex("]")]
    return [[int(n) for n in one.split(",") if n.strip()] for one in inner.replace("[", "").split("]")[:-1]]
