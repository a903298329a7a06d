"""Inference computes no auxiliary losses."""

from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir
from torch_mlir.dialects import func

from moec.dialect.functions import layer_function
from moec.passes.base import Pass, Remarks
from moec.passes.rewriting import terminator, users


@dataclass(frozen=True)
class DropLosses(Pass):
    """Takes the results that auxiliary losses are computed from, and what only they need, out of the layer."""

    name: ClassVar[str] = "drop-losses"

    def apply(self, module: ir.Module, remarks: Remarks) -> None:
        function = layer_function(module)
        attributes = [ir.DictAttr(one) for one in function.attributes["res_attrs"]]
        end = terminator(function.regions[0].blocks[0])
        kept = [(a, value) for a, value in zip(attributes, end.operands, strict=True) if not _is_loss(a)]
        if len(kept) == len(attributes):
            return
        remarks.add(self, f"{len(attributes) - len(kept)} results for auxiliary losses left out", function.location)
        with ir.InsertionPoint(end), end.location:
            func.ReturnOp([value for _, value in kept])
        end.erase()
        function.attributes["res_attrs"] = ir.ArrayAttr.get([a for a, _ in kept])
        inputs = [argument.type for argument in function.regions[0].blocks[0].arguments]
        results = [value.type for _, value in kept]
        function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(inputs, results))
        for op in reversed([op.operation for op in function.regions[0].blocks[0].operations][:-1]):
            if not any(users(result) for result in op.results):
                op.erase()


def _is_loss(attributes: ir.DictAttr) -> bool:
    return "moe.role" in attributes and ir.StringAttr(attributes["moe.role"]).value == "loss"
