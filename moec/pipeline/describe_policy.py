"""What a module says of the policy of its layout."""

from torch_mlir import ir

from moec.artifact.fields import Fields, InvalidManifest
from moec.artifact.policy import Policy, read_policy
from moec.diagnostics import Diagnostic, Severity
from moec.dialect.functions import POLICY
from moec.dialect.json_attributes import from_attribute
from moec.errors import DiagnosticError


def policy(module: ir.Module) -> Policy | None:
    """The policy; None where the layer has no layout.  Raises DiagnosticError for an attribute that is no policy."""
    attributes = module.operation.attributes
    if POLICY not in attributes:
        return None
    try:
        return read_policy(Fields.of(from_attribute(attributes[POLICY]), POLICY))
    except (InvalidManifest, ValueError) as why:
        said = f"the module's attribute is no policy: {why}"
        raise DiagnosticError([Diagnostic("E0605", Severity.ERROR, said)]) from why
