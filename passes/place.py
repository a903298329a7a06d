"""A layer becomes the pieces that every rank of a mesh runs."""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch_mlir import ir

from moec.passes.base import Pass, Remarks
from moec.passes.parallel import parallel
from moec.passes.pieces import tokens
from moec.passes.pieces.experts import experts
from moec.passes.pieces.parts import cannot_cut, find_parts
from moec.passes.pieces.sharding import read_sharding
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
        parts = find_parts(module, read_sharding(module))
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
