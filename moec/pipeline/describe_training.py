"""What a module says about training its layer: what its forward gives, its losses, the gradients of its backward."""

from torch_mlir import ir

from moec.artifact.manifest import Loss, StepTensor, Training
from moec.dialect.functions import BACKWARD, FORWARD, functions

LOSSES = "moe.losses"
"""The attribute of a module that lists the auxiliary losses of its layer."""


def training(module: ir.Module) -> Training | None:
    """None where the module holds no functions for training."""
    found = {_name(op): op for op in functions(module)}
    forward = next((op for name, op in found.items() if name.endswith(FORWARD)), None)
    backward = next((op for name, op in found.items() if name.endswith(BACKWARD)), None)
    if forward is None or backward is None:
        return None
    return Training(_step(forward), losses(module), _gradients(backward))


def losses(module: ir.Module) -> tuple[Loss, ...]:
    attributes = module.operation.attributes
    listed = ir.ArrayAttr(attributes[LOSSES]) if LOSSES in attributes else []
    return tuple(_loss(ir.DictAttr(one)) for one in listed)


def _loss(record: ir.DictAttr) -> Loss:
    weight = ir.FloatAttr(record["weight"]).value
    return Loss(str(ir.StringAttr(record["kind"]).value), weight, str(ir.StringAttr(record["over"]).value))


def _name(function: ir.Operation) -> str:
    return str(ir.StringAttr(function.attributes["sym_name"]).value)


def _text(attributes: ir.Attribute, name: str) -> str:
    return str(ir.StringAttr(attributes[name]).value)


def _step(forward: ir.Operation) -> tuple[StepTensor, ...]:
    returned = list(forward.regions[0].blocks[0].operations)[-1].operation.operands
    return tuple(
        _step_tensor(value, attributes)
        for value, attributes in zip(returned, forward.attributes["res_attrs"], strict=True)
        if _text(attributes, "moe.role") != "output"
    )


def _step_tensor(value: ir.Value, attributes: ir.Attribute) -> StepTensor:
    type_ = ir.RankedTensorType(value.type)
    rows = _rows_per_token(value) if type_.is_dynamic_dim(0) else 0
    row = tuple(type_.shape)[1:] if rows else tuple(type_.shape)
    name, role = (_text(attributes, key) for key in ("moe.name", "moe.role"))
    return StepTensor(name, role, rows, row, str(type_.element_type))


def _rows_per_token(value: ir.Value) -> int:
    """K for a tensor in row order, which a grouped matmul gives; 1 in token order."""
    op = None if isinstance(value, ir.BlockArgument) else value.owner.operation
    if op is None or op.name != "moe.grouped_matmul":
        return 1
    return int(ir.IntegerAttr(op.attributes["slots_per_token"]).value)


def _gradients(backward: ir.Operation) -> tuple[str, ...]:
    return tuple(_text(attributes, "moe.name").removeprefix("d.") for attributes in backward.attributes["res_attrs"])
