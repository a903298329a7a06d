"""Functions that are the same for two variants are compiled once.

A variant that adds instructions to another uses them in few places; routers, plans and f32 kernels come out alike.
Then the code of the lesser variant serves both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch_mlir import ir

from moec.backends.cpu.isa import Variant

_REFERENCES = {"llvm.call": "callee", "llvm.mlir.addressof": "global_name"}


def share(module: ir.Module, variants: Sequence[Variant]) -> None:
    """Removes functions of variants that extend another of `variants` where both have the same."""
    for variant in variants:
        bases = [other for name in variant.extends for other in variants if other.name == name]
        if bases:
            _share(module, variant, bases[0])


def _share(module: ir.Module, variant: Variant, base: Variant) -> None:
    functions = {
        op.attributes["sym_name"].value: op.operation
        for op in module.body.operations
        if op.operation.name == "llvm.func"
    }
    own = f".{variant.name}"
    pairs = {
        name: name.removesuffix(own) + f".{base.name}"
        for name in functions
        if name.endswith(own) and name.removesuffix(own) + f".{base.name}" in functions
    }
    texts = {name: _body(functions[name]) for name in (*pairs, *pairs.values())}
    alike = {name for name, other in pairs.items() if texts[name].replace(own, f".{base.name}") == texts[other]}
    # A function is not alike if it refers to one that is not.
    mentioned = {name: set(re.findall(rf"@([\w.]+{re.escape(own)})\b", texts[name])) for name in alike}
    while broken := {name for name in alike if not mentioned[name] <= alike}:
        alike -= broken
    for name in alike:
        functions[name].erase()

    def redirect(operation: Any) -> ir.WalkResult:
        attribute = _REFERENCES.get(operation.name)
        if attribute is not None and attribute in operation.attributes:
            name = ir.FlatSymbolRefAttr(operation.attributes[attribute]).value
            if name in alike:
                operation.attributes[attribute] = ir.FlatSymbolRefAttr.get(pairs[name])
        return ir.WalkResult.ADVANCE

    module.operation.walk(redirect)


def _body(function: ir.Operation) -> str:
    """The text of a function behind its attributes, which name the target."""
    text: str = function.get_asm(use_local_scope=True)
    head, _, body = text.partition("{\n")
    return head[: head.index(" attributes ")] + body
