"""Reading and printing IR as text, with MLIR's complaints turned into diagnostics."""

import re

from torch_mlir import ir

from moec.diagnostics import Diagnostic, Fix, Label, Severity, Source, Span
from moec.dialect.functions import layer_function, not_a_layer
from moec.errors import DiagnosticError

_MESSAGE = re.compile(r'^(?:error|warning): "[^"]*":(\d+):(\d+): (.*)$', re.MULTILINE)


def parse(text: str, name: str, context: ir.Context) -> ir.Module:
    """Parse and verify a module.  Raises DiagnosticError that points into the text."""
    with context:
        try:
            return ir.Module.parse(text)
        except ir.MLIRError as error:
            raise DiagnosticError(_diagnostics(str(error), Source(name, text))) from error


def parse_layer(text: str, name: str, context: ir.Context) -> ir.Module:
    """Parse and verify the module of a layer.  Raises DiagnosticError, also where its tensors have no names."""
    module = parse(text, name, context)
    function = layer_function(module)
    if "moe.layer" not in module.operation.attributes:
        raise not_a_layer("the module has no attribute `moe.layer`, the name of the layer")
    if not isinstance(module.operation.attributes["moe.layer"], ir.StringAttr):
        raise not_a_layer("the module's attribute `moe.layer`, the name of the layer, is no string")
    kinds = ir.FunctionType(ir.TypeAttr(function.attributes["function_type"]).value)
    for attribute, what, types in (("arg_attrs", "argument", kinds.inputs), ("res_attrs", "result", kinds.results)):
        given = list(function.attributes[attribute]) if attribute in function.attributes else [{} for _ in types]
        for number, one in enumerate(given):
            if "moe.name" not in one or (what == "argument" and "moe.role" not in one):
                said = f"{what} {number} of the layer has no `moe.name`" + ", or no `moe.role`" * (what == "argument")
                raise not_a_layer(said)
            for key in ("moe.name", "moe.role"):
                if key in one and not isinstance(one[key], ir.StringAttr):
                    raise not_a_layer(f"{what} {number} of the layer has the `{key}` {one[key]}, which is no string")
    return module


def _diagnostics(complaint: str, source: Source) -> list[Diagnostic]:
    found = [_diagnostic(source, int(m[1]), int(m[2]), m[3]) for m in _MESSAGE.finditer(complaint)]
    unplaced = Diagnostic("E0605", Severity.ERROR, "this is not valid IR", (), (complaint,))
    return found or [unplaced]


def _diagnostic(source: Source, line: int, column: int, message: str) -> Diagnostic:
    line = min(line, source.line_count)
    start = source.line_start(line) + column - 1
    word = re.match(r"[%\w.\"]+", source.text[start:])
    span = Span(source, start, start + (word.end() if word else 1))
    fix = Fix("see docs/ir.md for the operations of the moe dialect")
    if re.match(r"\s*edition\b", source.text):
        fix = Fix("give IR: `moec compile --emit=graph` prints that of a `.moe` file")
    return Diagnostic("E0605", Severity.ERROR, message, (Label(span),), (), fix)


def show(module: ir.Module, *, locations: bool = False, verified: bool = False) -> str:
    """The module as text that `parse` takes; of one that is not `verified`, it is first looked whether it is sound."""
    text: str = module.operation.get_asm(enable_debug_info=locations, assume_verified=verified)
    return text if text.endswith("\n") else text + "\n"
