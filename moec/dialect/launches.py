"""Operations that a device does by one launch: those of a block with the same number as their attribute `launch`.

None of them waits for another one, and nothing stands between them.
"""

from torch_mlir import ir

LAUNCH = "launch"


def launch_of(operation: ir.Operation) -> tuple[ir.Operation, ...]:
    """Those that are done together with an operation, itself among them, in the order of the block."""
    if LAUNCH not in operation.attributes:
        return (operation,)
    number = operation.attributes[LAUNCH]
    block = (op.operation for op in operation.block.operations)
    return tuple(op for op in block if LAUNCH in op.attributes and op.attributes[LAUNCH] == number)
