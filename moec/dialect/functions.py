"""The functions of a module: the layer itself and, where it is trained, its forward and backward."""

from dataclasses import dataclass

from torch_mlir import ir

from moec.diagnostics import Diagnostic, Fix, Severity
from moec.errors import DiagnosticError

FORWARD, BACKWARD = "_forward", "_backward"


def functions(module: ir.Module) -> list[ir.Operation]:
    return [op.operation for op in module.body.operations if op.operation.name == "func.func"]


def layer_function(module: ir.Module) -> ir.Operation:
    """The layer: the one function whose weights are packed.  Raises DiagnosticError where there is none, or more."""
    found = [op for op in functions(module) if not is_plain(op)]
    if len(found) == 1 and found[0].regions[0].blocks:
        return found[0]
    said = f"the module holds {len(found)} functions that could be the layer, and must hold one"
    if len(found) == 1:
        said = "the function that could be the layer has no body"
    raise not_a_layer(said)


def not_a_layer(said: str) -> DiagnosticError:
    """Of IR that is valid, but not that of a layer."""
    fix = Fix("give a module of one layer, as `moec compile --emit=graph` prints it")
    return DiagnosticError([Diagnostic("E0605", Severity.ERROR, said, (), (), fix)])


def named_function(module: ir.Module, name: str) -> ir.Operation:
    """The function of this name.  Raises KeyError where there is none."""
    return {ir.StringAttr(op.attributes["sym_name"]).value: op for op in functions(module)}[name]


def is_plain(function: ir.Operation) -> bool:
    """Whether a function reads its parameters as ordinary contiguous tensors, at each call."""
    return "moe.weights" in function.attributes


def has_training(module: ir.Module) -> bool:
    """Whether a module holds the functions that train its layer."""
    return any(is_plain(op) for op in functions(module))


@dataclass(frozen=True)
class Routed:
    """The routed experts of a layer: the name of their group in the file, and how many there are."""

    name: str
    count: int

    @property
    def attribute(self) -> ir.DictAttr:
        """The value of a module's attribute `moe.routed`."""
        count = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), self.count)
        return ir.DictAttr.get({"experts": count, "name": ir.StringAttr.get(self.name)})


def routed(module: ir.Module) -> Routed | None:
    """What a module says about its routed experts; None where it says nothing."""
    attributes = module.operation.attributes
    if "moe.routed" not in attributes:
        return None
    record = ir.DictAttr(attributes["moe.routed"])
    return Routed(str(ir.StringAttr(record["name"]).value), int(ir.IntegerAttr(record["experts"]).value))


def is_statistic(attributes: ir.Attribute) -> bool:
    """Whether a result with these attributes says what a call met, beside what it computed."""
    given = ir.DictAttr(attributes)
    return "moe.role" in given and ir.StringAttr(given["moe.role"]).value == "statistic"


WIDE_PANELS = "moe.wide_panels"
"""The attribute of a layer's function that is meant for few rows an expert: more columns at a time are multiplied."""


def has_wide_panels(function: ir.Operation) -> bool:
    return WIDE_PANELS in function.attributes


POLICY = "moe.policy"
"""The attribute of a module whose layer has a layout: what may change while it runs (`moec.artifact.policy`)."""


def is_paged(function: ir.Operation) -> bool:
    """Whether packed weights of this layer may lie on disk: its layout says `page`."""
    attributes = function.parent.attributes
    if POLICY not in attributes:
        return False
    policy = ir.DictAttr(attributes[POLICY])
    return "page" in policy and not isinstance(policy["page"], ir.UnitAttr)
