"""How differentiation says that something is beyond it."""

from torch_mlir import ir

from moec.dialect.places import place
from moec.errors import DiagnosticError
from moec.passes.refusal import error


def no_gradient(op: ir.Operation, why: str) -> DiagnosticError:
    """The error for an operation that gradients cannot go through."""
    return error(
        "E0620", f"no gradient: {why}", notes=[f"at {place(op.location)}"], fix="compile the layer without training"
    )


def not_trained(op: ir.Operation, what: str) -> DiagnosticError:
    """The error for a layer whose weights or rows are quantised."""
    return error(
        "E0621",
        f"a layer with {what} cannot be trained",
        notes=[f"at {place(op.location)}"],
        fix="train the layer in bf16, f16 or f32, and quantise its weights afterwards",
    )
