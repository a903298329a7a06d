"""A layer tells, beside its results, which experts its tokens chose."""

from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir
from torch_mlir.dialects import func

from moec.dialect import CountOp
from moec.dialect.functions import layer_function, routed
from moec.passes.base import Pass, Remarks
from moec.passes.rewriting import operations, terminator


@dataclass(frozen=True)
class CountLoad(Pass):
    """Adds statistics to the results of the layer's own function, behind its outputs, each tensor<Exi32>.

    `chosen` counts the slots that chose each routed expert, before any limit; where the layer has a capacity, `kept`
    counts those that it kept.  The module's attribute `moe.routed` says how many experts there are; one without it, and
    one that has statistics, is left as it is.
    """

    name: ClassVar[str] = "count-load"

    def apply(self, module: ir.Module, remarks: Remarks) -> None:
        function = layer_function(module)
        if any("moe.role" in named and _role(named) == "statistic" for named in function.attributes["res_attrs"]):
            return
        experts = routed(module)
        block = function.regions[0].blocks[0]
        routers = operations(block, "moe.route")
        if experts is None or not routers:
            remarks.add(self, "nothing says how many experts are routed: not counted", function.location)
            return
        counted = {"chosen": routers[0].index}
        for capacity in operations(block, "moe.capacity"):
            if capacity.index == routers[0].index:
                counted["kept"] = capacity.kept
        type_ = ir.RankedTensorType.get([experts.count], ir.IntegerType.get_signless(32))
        counts = {}
        for name, index in counted.items():
            with ir.InsertionPoint.after(index.owner.operation), index.owner.operation.location:
                counts[name] = CountOp(index, type_).out
        _add_results(function, counts)
        remarks.add(self, f"counted: {', '.join(counts)} of {experts.count} experts", function.location)


def _role(named: ir.DictAttr) -> str:
    return str(ir.StringAttr(named["moe.role"]).value)


def _add_results(function: ir.Operation, values: dict[str, ir.Value]) -> None:
    block = function.regions[0].blocks[0]
    end = terminator(block)
    results = [*end.operands, *values.values()]
    with ir.InsertionPoint(end), end.location:
        func.ReturnOp(results)
    end.erase()
    role = ir.StringAttr.get("statistic")
    named = [ir.DictAttr.get({"moe.name": ir.StringAttr.get(name), "moe.role": role}) for name in values]
    function.attributes["res_attrs"] = ir.ArrayAttr.get([*function.attributes["res_attrs"], *named])
    types = ir.FunctionType.get([a.type for a in block.arguments], [value.type for value in results])
    function.attributes["function_type"] = ir.TypeAttr.get(types)
