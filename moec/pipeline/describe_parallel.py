"""What a module says of the mesh that its layer is spread over."""

from torch_mlir import ir

from moec.artifact.fields import Fields, InvalidManifest
from moec.artifact.parallel import Parallel, read_parallel
from moec.diagnostics import Diagnostic, Severity
from moec.dialect.json_attributes import from_attribute
from moec.errors import DiagnosticError

PARALLEL = "moe.parallel"


def parallel(module: ir.Module) -> Parallel | None:
    """The record; None where the layer runs in one process.  Raises DiagnosticError for an attribute that is none."""
    attributes = module.operation.attributes
    if PARALLEL not in attributes:
        return None
    try:
        return read_parallel(Fields.of(from_attribute(attributes[PARALLEL]), PARALLEL))
    except (InvalidManifest, ValueError) as why:
        said = f"the module's attribute does not say how the layer is spread: {why}"
        raise DiagnosticError([Diagnostic("E0605", Severity.ERROR, said)]) from why
