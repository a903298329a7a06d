"""A module in parts that become object files of their own, so that those which another module had, too, are not
compiled again.

A layer that is specialised anew mostly has the microkernels that it had before, and another set of quantised experts
changes little more than how weights are packed.  Functions are not inlined into each other, so cutting a module between
them costs nothing but calls through registers.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from importlib.metadata import version

from torch_mlir import ir
from torch_mlir.dialects import llvm

import moec
from moec.backends.cpu import codegen
from moec.backends.cpu.later import Later
from moec.backends.objects import Known

_PARTS = (
    (re.compile(r"(kernel_\w+)_\d+x\d+_\w+(\.\w+)"), r"\1\2"),
    (re.compile(r"(?:phase_\w+|find_\w+|setup|workspace|team|run)(\.\w+)"), r"call\1"),
    (re.compile(r"constant_|tables\."), "experts"),
    (re.compile(r"(?:adopt_step|(?:un)?pack_\d+)(\.\w+)"), r"parameters\1"),
    (re.compile(r"(?:un)?pack_\w+(\.\w+)"), r"packing\1"),
    (re.compile(r"([a-z]+)_\w+(\.\w+)"), r"\1\2"),  # `decode`, and what only training has
)
"""Parts by the names of what is in them, with groups of what matched; the rest is the interface, which is another for
each choice of instruction sets.  `experts` is what depends on which experts are quantised: tables, and a function that
says where one of them lies, since a part needs one.  What takes long has a part for each instruction set, so that code
for one of them has these in common with code for several."""
_HIDDEN = 1  # LLVM's number


@dataclass(frozen=True)
class _Symbol:
    """A function or constant of a module, and what it is made of."""

    name: str
    operation: ir.Operation
    later: Later | None
    """What can write it, where that is not done."""
    content: bytes
    """Of what is not written, a key for what would be."""

    @property
    def function(self) -> bool:
        return bool(self.operation.name == "llvm.func")

    @property
    def defined(self) -> bool:
        return not self.function or self.later is not None or bool(self.operation.regions[0].blocks)

    @property
    def part(self) -> str:
        """The part that it belongs to; any choice is right that leaves apart what is not written."""
        if self.later is not None:
            return f"later {self._kind}"
        return self._kind

    @property
    def _kind(self) -> str:
        for pattern, part in _PARTS:
            if found := pattern.match(self.name):
                return found.expand(part)
        return "interface"

    def mentioned(self, content: bytes) -> bool:
        """Whether bytecode holds its name, at the end of a string: names of instruction sets may begin alike."""
        return self.name.encode() + b"\0" in content


def object_files(module: ir.Module, known: Known, later: Mapping[str, Later] | None = None) -> list[bytes]:
    """The object files of a module at the level of vectors; `known` gives and takes them.

    later: what writes functions of the module that have no body yet, by their names.  They get one where their code is
    not known.
    """
    later = later or {}
    symbols = [_symbol(op.operation, later) for op in module.body.operations]
    found = []
    for own in _parts(symbols):
        inside = {symbol.name for symbol in own}
        others = b"".join(symbol.content for symbol in symbols if symbol.name not in inside)
        shown = {symbol.name for symbol in own if symbol.mentioned(others)}
        digest = _digest(own, shown)
        made = known.get(digest)
        if made is None:
            made = _compile(module, own, shown, [symbol for symbol in symbols if symbol.name not in inside])
            known.put(digest, made)
        found.append(made)
    return found


def _parts(symbols: Sequence[_Symbol]) -> list[list[_Symbol]]:
    """What is defined, in parts of at least one function: LLVM's engine makes nothing of constants alone."""
    parts: dict[str, list[_Symbol]] = {}
    for symbol in symbols:
        if symbol.defined:
            parts.setdefault(symbol.part, []).append(symbol)
    for name in [name for name, own in parts.items() if not any(symbol.function for symbol in own)]:
        constants = parts.pop(name)
        home = next((other for other in parts if other.startswith("parameters")), "interface")
        parts.setdefault(home, []).extend(constants)
    return list(parts.values())


def _symbol(operation: ir.Operation, later: Mapping[str, Later]) -> _Symbol:
    name = ir.StringAttr(operation.attributes["sym_name"]).value
    if name in later and not later[name].written:
        return _Symbol(name, operation, later[name], later[name].key.encode())
    stream = io.BytesIO()
    operation.write_bytecode(stream)
    return _Symbol(name, operation, None, stream.getvalue())


def _digest(own: Sequence[_Symbol], shown: Set[str]) -> str:
    made_by = f"moec {moec.__version__}, torch-mlir {version('torch-mlir')}, {codegen.LOWERING}"
    digest = hashlib.sha256(f"{made_by}\n{sorted(shown)}\n".encode())
    for symbol in own:
        digest.update(b"%d\n" % len(symbol.content))
        digest.update(symbol.content)
    return digest.hexdigest()


def _compile(module: ir.Module, own: Sequence[_Symbol], shown: Set[str], others: Sequence[_Symbol]) -> bytes:
    content = b"".join(symbol.content for symbol in own)
    with module.context, ir.Location.unknown():
        made = ir.Module.create()
        with ir.InsertionPoint(made.body):
            for symbol in others:
                if symbol.mentioned(content):
                    _declare(symbol)
            for symbol in own:
                if symbol.later is not None:
                    symbol.later.write()
                copy = symbol.operation.clone()
                if symbol.name in shown:
                    _show(copy)
        made.operation.verify()
        codegen.lower_to_llvm(made)
        return codegen.object_file(made)


def _show(operation: ir.Operation) -> None:
    """To the other parts, and not beyond the library."""
    if "internal" in str(operation.attributes["linkage"]):
        operation.attributes["linkage"] = ir.Attribute.parse("#llvm.linkage<external>")
        operation.attributes["visibility_"] = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), _HIDDEN)


def _declare(symbol: _Symbol) -> None:
    operation = symbol.operation
    if not symbol.defined:
        operation.clone()
        return
    external = ir.Attribute.parse("#llvm.linkage<external>")
    if operation.name == "llvm.func":
        llvm.LLVMFuncOp(symbol.name, operation.attributes["function_type"], linkage=external, visibility_=_HIDDEN)
    else:
        attributes = operation.attributes
        llvm.GlobalOp(
            attributes["global_type"],
            symbol.name,
            external,
            constant=True,
            alignment=attributes["alignment"],
            addr_space=0,
            visibility_=_HIDDEN,
        )
