"""A layer becomes the pieces that every rank of a mesh runs."""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch_mlir import ir

from moec.passes.base import Pass, Remarks
from moec.passes.parallel import parallel
from moec.passes.pieces import tokens
from moec.passes.pieces.experts import experts
from moec.passes.pieces.parts import cannot_cut, find_parts
from moec.passes.rewriting import function


@dataclass(frozen=True)
class Place(Pass):
    """Replaces the layer of a module that has `moe.parallel` by modules inside it, one for each piece, named after it.

    All ranks run the same pieces: which expert lies in which slot of which rank is data.  A piece is a layer at graph
    level and is compiled as one; docs/artifact.md says what each takes and gives.  With `train` there are
    `shared_training` and `collect_training`, too, where training adds shared experts up otherwise.
    """

    train: bool = False
    name: ClassVar[str] = "place"

    def apply(self, module: ir.Module, remarks: Remarks) -> None:
        spread = parallel(module)
        if spread is None:
            raise cannot_cut(function(module), "nothing says over which", "write `on MESH` in its layout")
        forget_sharding(module)
        parts = find_parts(module)
        made = {
            "route": tokens.route(parts),
            "capacity": tokens.capacity(parts),
            "experts": experts(parts, spread.slots),
            "shared": tokens.shared(parts),
            "collect": tokens.collect(parts),
        }
        if self.train and any(len(one.terms) > 1 for one in parts.shared):
            summed = replace(parts, shared=tuple(replace(one, apart=False) for one in parts.shared))
            made |= {
                "shared_training": tokens.shared(summed, "shared_training"),
                "collect_training": tokens.collect(summed, "collect_training"),
            }
        layer = function(module)
        for name, piece in made.items():
            if piece is not None:
                copy = piece.operation.clone(ir.InsertionPoint(module.body))
                copy.attributes["sym_name"] = ir.StringAttr.get(name)
        remarks.add(self, f"pieces: {', '.join(n for n, piece in made.items() if piece is not None)}", layer.location)
        layer.erase()


def forget_sharding(module: ir.Module) -> None:
    """Take the layer's `shard.shard` operations away: what they say has been read."""
    block = function(module).regions[0].blocks[0]
    for op in [op.operation for op in block.operations if op.operation.name == "shard.shard"]:
        op.results[0].replace_all_uses_with(op.operands[0])
        op.erase()
    for op in [op.operation for op in block.operations if op.operation.name == "shard.sharding"]:
        op.erase()
