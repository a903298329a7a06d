"""Where in the source an operation comes from, for messages."""

from torch_mlir import ir


def place(location: ir.Location) -> str:
    """File, line and column as MLIR writes them: `"layer.moe":8:3`."""
    return str(location).removeprefix("loc(").removesuffix(")")
