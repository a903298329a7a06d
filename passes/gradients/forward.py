"""Gives a layer's function at kernel level the results that its backward needs saved."""

from collections.abc import Sequence

from torch_mlir import ir
from torch_mlir.dialects import func

from moec.dialect import GroupedMatmulOp, MatmulOp
from moec.passes.gradients.backward import named
from moec.passes.gradients.formulas import rounded
from moec.passes.gradients.tape import Saved
from moec.passes.rewriting import element_type, flag, terminator, yield_value


def save(function: ir.Operation, saved: Sequence[Saved], name: str) -> None:
    """Make `function` the forward called `name`, which also gives what is saved."""
    block = function.regions[0].blocks[0]
    end = terminator(block)
    count = len(end.operands)
    extra = _accumulators(saved)
    values = [extra[one.value, one.accumulator] if one.accumulator is not None else one.value for one in saved]
    replaced = {old: new for (old, number), new in extra.items() if number is None}
    with ir.InsertionPoint(end), end.location:
        func.ReturnOp([replaced.get(value, value) for value in (*end.operands, *values)])
    end.erase()
    for before in replaced:
        before.owner.operation.erase()
    old = [_role(attributes) for attributes in function.attributes["res_attrs"]]
    assert len(old) == count
    results = [*old, *(named(one.name, "saved") for one in saved)]
    function.attributes["res_attrs"] = ir.ArrayAttr.get(results)
    types = [value.type for value in terminator(block).operands]
    inputs = [a.type for a in block.arguments]
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(inputs, types))
    function.attributes["sym_name"] = ir.StringAttr.get(name)
    function.attributes["moe.weights"] = ir.StringAttr.get("plain")


def _role(attributes: ir.Attribute) -> ir.DictAttr:
    """A result's attributes; one without a role is an output."""
    given = ir.DictAttr(attributes)
    return given if "moe.role" in given else named(str(ir.StringAttr(given["moe.name"]).value), "output")


def _accumulators(saved: Sequence[Saved]) -> dict[tuple[ir.Value, int | None], ir.Value]:
    """Rebuilds matmuls whose accumulators are saved with further results: (result, accumulator) to these.

    With accumulator None: what stands for the result itself now.
    """
    wanted: dict[ir.Value, list[int]] = {}
    for one in saved:
        if one.accumulator is not None:
            wanted.setdefault(one.value, []).append(one.accumulator)
    found: dict[tuple[ir.Value, int | None], ir.Value] = {}
    for result, numbers in wanted.items():
        old = result.owner.opview
        made = _wider(old, numbers)
        new = list(made.operation.results)
        found[result, None] = new[0]
        found |= {(result, number): value for number, value in zip(numbers, new[1:], strict=True)}
    for (result, number), value in list(found.items()):
        if number is None:
            result.replace_all_uses_with(value)
    return found


def _wider(old: ir.OpView, numbers: Sequence[int]) -> ir.OpView:
    types = [old.out.type] * (len(numbers) + 1)
    with ir.InsertionPoint(old), old.location:
        if isinstance(old, MatmulOp):
            made: ir.OpView = MatmulOp(old.lhs, list(old.weights), types)
        else:
            made = GroupedMatmulOp(
                old.lhs, old.offsets, old.slots, list(old.weights), flag(old.gather), old.slots_per_token, types
            )
    block = old.epilogue.blocks[0]
    block.append_to(made.epilogue)
    block = made.epilogue.blocks[0]
    end = terminator(block)
    element = element_type(old.out)
    with ir.InsertionPoint(end), end.location:
        yield_value(end.operands[0], *(rounded(block.arguments[number], element) for number in numbers))
    end.erase()
    return made
