"""The capacity of a layer, refitted to the load that it meets."""

from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir

from moec.passes.base import Pass, Remarks
from moec.passes.refusal import error
from moec.passes.rewriting import body, function, operations


@dataclass(frozen=True)
class RefitCapacity(Pass):
    """Gives every `moe.capacity` another `factor`, at graph or kernel level.  The layer then computes something else.

    Raises DiagnosticError where there is none, or the factor is not above 0.
    """

    factor: float = 0.0
    name: ClassVar[str] = "refit-capacity"

    def apply(self, module: ir.Module, remarks: Remarks) -> None:
        found = operations(body(module), "moe.capacity")
        if not self.factor > 0:
            raise error("E0611", f"a capacity factor of {self.factor:g} keeps nothing", fix="give `factor=` above 0")
        if not found:
            raise error("E0611", "the layer has no capacity that could be refitted")
        for op in found:
            before = ir.FloatAttr(op.attributes["factor"]).value
            op.attributes["factor"] = ir.FloatAttr.get(ir.F64Type.get(), self.factor)
            remarks.add(self, f"factor {before:g} became {self.factor:g}", function(module).location)
