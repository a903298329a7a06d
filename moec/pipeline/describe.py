"""What a module says about its layer: the tensors it takes and gives, and what holds for its results."""

from collections.abc import Iterator

from torch_mlir import ir

from moec.artifact.manifest import Guarantees, Statistic, TokenTensor, Weight
from moec.dialect.functions import is_statistic, layer_function, routed


def layer_name(module: ir.Module) -> str:
    return str(ir.StringAttr(module.operation.attributes["moe.layer"]).value)


def _arguments(module: ir.Module) -> Iterator[tuple[str, str, tuple[int, ...], str]]:
    """(name, role, static shape with the token axis dropped for inputs, dtype) of every argument."""
    function = layer_function(module)
    block = function.regions[0].blocks[0]
    for value, attributes in zip(block.arguments, function.attributes["arg_attrs"], strict=True):
        role = str(ir.StringAttr(attributes["moe.role"]).value)
        name = str(ir.StringAttr(attributes["moe.name"]).value)
        type_ = ir.RankedTensorType(value.type)
        yield name, role, _shape(type_, role), str(type_.element_type)


def _shape(type_: ir.RankedTensorType, role: str) -> tuple[int, ...]:
    return tuple(type_.shape)[1 if role == "input" else 0 :]


def inputs(module: ir.Module) -> tuple[TokenTensor, ...]:
    return tuple(TokenTensor(name, row, dtype) for name, role, row, dtype in _arguments(module) if role == "input")


def weights(module: ir.Module) -> tuple[Weight, ...]:
    return tuple(Weight(name, row, dtype, role) for name, role, row, dtype in _arguments(module) if role != "input")


def outputs(module: ir.Module) -> tuple[TokenTensor, ...]:
    function = layer_function(module)
    types = ir.FunctionType(ir.TypeAttr(function.attributes["function_type"]).value).results
    return tuple(
        TokenTensor(str(ir.StringAttr(a["moe.name"]).value), tuple(t.shape)[1:], str(t.element_type))
        for t, a in zip(map(ir.RankedTensorType, types), function.attributes["res_attrs"], strict=True)
        if not is_statistic(a)
    )


def statistics(module: ir.Module) -> tuple[Statistic, ...]:
    function, group = layer_function(module), routed(module)
    if group is None:
        return ()
    results = list(function.regions[0].blocks[0].operations)[-1].operation.operands
    counted = (
        (ir.DictAttr(attributes), value.owner.operands[0])
        for attributes, value in zip(function.attributes["res_attrs"], results, strict=True)
        if is_statistic(attributes)
    )
    return tuple(
        Statistic(str(ir.StringAttr(a["moe.name"]).value), group.name, index.type.get_dim_size(1), (group.count,))
        for a, index in counted
    )


def guarantees(module: ir.Module) -> Guarantees:
    """What the operations allow to promise.

    Regions are written for one token and kernels add up in a fixed order, so a token's result depends on that token
    alone, unless something ranks tokens against each other: a capacity limit does.
    """
    ranks_tokens = any(
        op.operation.name == "moe.capacity" for op in layer_function(module).regions[0].blocks[0].operations
    )
    return Guarantees(
        deterministic=True,
        batch_invariant=not ranks_tokens,
        thread_invariant=True,
        isolated=not ranks_tokens,
        accumulation="f32",
    )
