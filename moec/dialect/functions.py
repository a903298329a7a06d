"""The functions of a module: the layer itself and, where it is trained, its forward and backward."""

from torch_mlir import ir

FORWARD, BACKWARD = "_forward", "_backward"


def functions(module: ir.Module) -> list[ir.Operation]:
    return [op.operation for op in module.body.operations if op.operation.name == "func.func"]


def layer_function(module: ir.Module) -> ir.Operation:
    """The layer: the one function whose weights are packed."""
    (found,) = [op for op in functions(module) if not is_plain(op)]
    return found


def named_function(module: ir.Module, name: str) -> ir.Operation:
    """The function of this name.  Raises KeyError where there is none."""
    return {ir.StringAttr(op.attributes["sym_name"]).value: op for op in functions(module)}[name]


def is_plain(function: ir.Operation) -> bool:
    """Whether a function reads its parameters as ordinary contiguous tensors, at each call."""
    return "moe.weights" in function.attributes


def has_training(module: ir.Module) -> bool:
    """Whether a module holds the functions that train its layer."""
    return any(is_plain(op) for op in functions(module))
