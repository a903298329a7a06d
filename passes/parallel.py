"""What a module says of the mesh that its layer is spread over."""

from torch_mlir import ir

from moec.artifact.fields import Fields, InvalidManifest
from moec.artifact.parallel import Parallel, read_parallel
from moec.dialect.json_attributes import from_attribute
from moec.passes.refusal import error

PARALLEL = "moe.parallel"


def parallel(module: ir.Module) -> Parallel | None:
    """The record; None where the layer runs in one process.  Raises DiagnosticError for an attribute that is none."""
    attributes = module.operation.attributes
    if PARALLEL not in attributes:
        return None
    try:
        return read_parallel(Fields.of(from_attribute(attributes[PARALLEL]), PARALLEL))
    except (InvalidManifest, ValueError) as why:
        raise error("E0605", f"the module's attribute does not say how the layer is spread: {why}") from why
