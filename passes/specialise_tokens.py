"""Kernels for calls of few tokens."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from torch_mlir import ir

from moec.artifact.allowed import few_rows
from moec.artifact.manifest import ITEM_BYTES
from moec.dialect.functions import WIDE_PANELS, layer_function
from moec.passes.base import Pass, Remarks
from moec.passes.refusal import error
from moec.passes.rewriting import body, dims, element_type, operations, walk


@dataclass(frozen=True)
class SpecialiseTokens(Pass):
    """Says at kernel level what is best for calls of `least` to `most` tokens; any others are right, but slower.

    Where experts have few rows, wide panels give the processor more sums to work on at once.  All else that depends on
    the number of tokens, kernels decide while they run.  No result's bits change; the packed form may.
    """

    least: int = 0
    most: int = 0
    name: ClassVar[str] = "specialise-tokens"

    def apply(self, module: ir.Module, remarks: Remarks) -> None:
        if not 0 <= self.least <= self.most:
            raise error("E0611", f"there are no calls of {self.least} to {self.most} tokens")
        layer = layer_function(module)
        block = body(module)
        plans = operations(block, "moe.plan")
        weight_bytes = sum(_nbytes(argument) for argument in block.arguments if dims(argument)[0] >= 0)
        wide = bool(plans) and all(
            few_rows(self.most, dims(plan.index)[1], ir.IntegerAttr(plan.experts).value, weight_bytes) for plan in plans
        )
        if wide and not any(op.name == "moe.quantize" for op in walk(block)):
            layer.attributes[WIDE_PANELS] = ir.UnitAttr.get(module.context)
            remarks.add(self, f"wide panels for up to {self.most} tokens", layer.location)
        else:
            remarks.add(self, f"nothing is different for up to {self.most} tokens", layer.location)


def _nbytes(parameter: ir.Value) -> int:
    return ITEM_BYTES[str(element_type(parameter))] * prod(dims(parameter))
