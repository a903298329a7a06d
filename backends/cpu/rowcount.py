"""How many rows a tensor has for each token, at most: one in token order, as many as a token has slots in row order."""

from __future__ import annotations

from torch_mlir import ir

_GROUPED = ("moe.grouped_matmul", "moe.grouped_matmul_combine", "moe.weight_gradient", "moe.group_sum")

# Operation -> operands, with the attribute that says whether they are gathered, that is in token order.
_OPERANDS = {
    "moe.grouped_matmul": {0: "gather"},
    "moe.grouped_matmul_combine": {0: "gather"},
    "moe.weight_gradient": {0: "gather_a", 1: "gather_b"},
    "moe.group_sum": {0: "gather", 3: ""},
}


def rows_per_token(value: ir.Value) -> int:
    """Of an argument, by what reads it; of a result, by what makes it."""
    found = _read(value, set()) if isinstance(value.owner, ir.Block) else _made(value.owner.operation, set())
    return found or 1


def _made(operation: ir.Operation, seen: set[ir.Value]) -> int | None:
    match operation.name:
        case "moe.grouped_matmul":
            return _slots(operation)
        case "moe.row_values":
            return int(ir.RankedTensorType(operation.operands[0].type).get_dim_size(1))
        case "moe.map" | "moe.quantize_rows":
            return _of(operation.operands[0], seen)
        case "moe.join_rows":
            return _of(operation.operands[1], seen)
        case _:
            return None


def _of(value: ir.Value, seen: set[ir.Value]) -> int | None:
    return _read(value, seen) if isinstance(value.owner, ir.Block) else _made(value.owner.operation, seen)


def _read(value: ir.Value, seen: set[ir.Value]) -> int | None:
    """What the readers of an argument say; None if none does."""
    if value in seen:
        return None
    seen = seen | {value}
    for use in value.uses:
        operation = use.owner.operation
        found = None
        if operation.name == "moe.element":
            if ir.StringAttr(operation.attributes["kind"]).value in ("row", "scalar"):
                found = _slots(operation.parent) if operation.parent.name in _GROUPED else None
        elif operation.name == "moe.row":
            parent = operation.parent
            found = _of(parent.operands[0], seen) if parent.name == "moe.map" else None
        elif operation.name == "moe.slot_values" and use.operand_number == 0:
            found = int(ir.RankedTensorType(operation.results[0].type).get_dim_size(1))
        elif use.operand_number in _OPERANDS.get(operation.name, {}):
            gathered = _OPERANDS[operation.name][use.operand_number]
            in_rows = not gathered or not ir.IntegerAttr(operation.attributes[gathered]).value
            found = _slots(operation) if in_rows else None
        if found is not None:
            return found
    return None


def _slots(operation: ir.Operation) -> int:
    return int(ir.IntegerAttr(operation.attributes["slots_per_token"]).value)
