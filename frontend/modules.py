"""Files and what they import: the main file, files beside it, and the standard library that ships with moec."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath

from moec.diagnostics import Collector, Source, Span, did_you_mean
from moec.errors import DiagnosticError
from moec.frontend import ast
from moec.frontend.declarations import (
    Declarations,
    Definition,
    Import,
    LayerDeclaration,
    LayoutDeclaration,
    LoadDeclaration,
    MeshDeclaration,
)
from moec.frontend.declare import declare
from moec.frontend.files import Unreadable, read_source, read_text
from moec.frontend.names import duplicate, reserved
from moec.frontend.operations import OPERATIONS
from moec.frontend.parser import parse

STANDARD = "std/"
PRELUDE = "std/prelude.moe"
MOST_FILES = 64
DEEPEST = 16
"""Imports within imports."""


@dataclass(frozen=True)
class Known:
    """A definition and the file in which it is written, whose names its body sees."""

    definition: Definition
    home: Module


@dataclass(eq=False)
class Module:
    """A file that has been read.

    `scope`: the definitions it sees by name; `own`: those it gives to importers; `folder`: what its paths are relative
    to, None in the standard library.
    """

    source: Source
    declarations: Declarations
    folder: Path | None = None
    scope: dict[str, Known] = field(default_factory=dict)
    own: dict[str, Known] = field(default_factory=dict)


class Modules:
    """Reads files once each; `sources` lists every one that was read, the main file first."""

    def __init__(self, found: Collector) -> None:
        self._found = found
        self._read: dict[str, Module | None] = {}
        self._stack: list[tuple[str, str]] = []
        self.sources: list[Source] = []

    def every(self) -> list[Module]:
        """All files that were read and understood."""
        return [module for module in self._read.values() if module is not None]

    def main(self, path: Path) -> Module | None:
        """The file that the user named, or None after reporting why not."""
        try:
            source = read_source(path)
        except DiagnosticError as error:
            self._found.extend(error.diagnostics)
            return None
        return self._module(str(path.resolve()), source, path.parent)

    def text(self, source: Source, folder: Path) -> Module | None:
        """A main file whose text is at hand."""
        return self._module(f"<{source.name}>", source, folder)

    def _module(self, key: str, source: Source, folder: Path | None) -> Module | None:
        self.sources.append(source)
        self._stack.append((key, source.name))
        try:
            declarations = declare(_parsed(source) if folder is None else parse(source), self._found)
        except DiagnosticError as error:
            self._found.extend(error.diagnostics)
            self._stack.pop()
            self._read[key] = None
            return None
        module = Module(source, declarations, folder)
        if folder is not None:  # files of the library import what they need by name
            prelude = self._standard(PRELUDE, None)
            module.scope.update(prelude.own if prelude else {})
        self._define(module)
        for one in declarations.imports:
            self._import(module, one, folder)
        self._stack.pop()
        self._read[key] = module
        return module

    def _define(self, module: Module) -> None:
        first: dict[str, Span] = {}
        own = module.declarations
        declared: list[Definition | LayerDeclaration | LoadDeclaration | MeshDeclaration | LayoutDeclaration] = [
            *own.definitions, *own.layers, *own.loads, *own.meshes, *own.layouts,
        ]  # fmt: skip
        for declaration in declared:
            name = declaration.name
            if reserved(self._found, name):
                continue
            if name.text in OPERATIONS and isinstance(declaration, Definition) and declaration.kind == "expert":
                self._found.error(
                    "E0209",
                    f"`{name.text}` is an operation of the language",
                    name.span,
                    "reserved",
                    fix=f"choose another name, such as `{name.text}_`",
                )
            elif name.text in first:
                duplicate(self._found, name, first[name.text])
            else:
                first[name.text] = name.span
                if isinstance(declaration, Definition):
                    module.scope[name.text] = module.own[name.text] = Known(declaration, module)

    def _import(self, module: Module, one: Import, folder: Path | None) -> None:
        other = self._imported(one, folder)
        if other is None:
            return
        for name in one.names:
            known = other.own.get(name.text)
            if known is None:
                layers = {layer.name.text for layer in other.declarations.layers}
                self._found.error(
                    "E0205",
                    f"`{one.path}` defines no router or expert `{name.text}`",
                    name.span,
                    "a layer cannot be imported" if name.text in layers else "not defined there",
                    notes=[f"it defines {', '.join(f'`{n}`' for n in sorted(other.own))}"] if other.own else [],
                    fix=did_you_mean(name.text, other.own, name.span),
                )
            elif name.text in module.own:
                duplicate(self._found, name, module.own[name.text].definition.name.span)
            else:
                module.scope[name.text] = module.own[name.text] = known

    def _imported(self, one: Import, folder: Path | None) -> Module | None:
        path = PurePosixPath(one.path)
        if one.path.startswith(STANDARD):
            return self._standard(one.path, one.path_span)
        if (
            folder is None
            or path.is_absolute()
            or path.suffix != ".moe"
            or "\\" in one.path
            or not one.path.isprintable()
        ):
            self._found.error(
                "E0108",
                f"`{one.path}` is not a path that can be imported",
                one.path_span,
                notes=["a path is relative to this file, ends in `.moe`, and parts are separated by `/`"],
                fix="for the standard library write `std/NAME.moe`",
            )
            return None
        target = folder / path
        return self._once(str(target.resolve()), str(target), one.path_span, target)

    def _standard(self, name: str, span: Span | None) -> Module | None:
        shipped = sorted(
            entry.name for entry in (files("moec.frontend") / "std").iterdir() if entry.name.endswith(".moe")
        )
        if name.removeprefix(STANDARD) not in shipped:
            known = [STANDARD + one for one in shipped]
            self._found.error(
                "E0108",
                f"the standard library has no `{name}`",
                span,
                notes=[f"it has {', '.join(f'`{one}`' for one in known)}"],
                fix=did_you_mean(name, known, Span(span.source, span.start + 1, span.end - 1) if span else None),
            )
            return None
        return self._once(name, name, span, None)

    def _once(self, key: str, name: str, span: Span | None, path: Path | None) -> Module | None:
        if key in self._read:
            return self._read[key]
        keys = [one for one, _ in self._stack]
        if key in keys:
            ring = [shown for _, shown in self._stack[keys.index(key) :]]
            self._found.error(
                "E0109",
                "files import each other in a ring",
                span,
                notes=[" imports ".join([*ring, ring[0]])],
                fix="move what both need into a third file",
            )
            return None
        if len(self._stack) > DEEPEST or len(self.sources) >= MOST_FILES:
            limit = f"more than {MOST_FILES} files" if len(self.sources) >= MOST_FILES else f"{DEEPEST} imports deep"
            self._found.error("E0104", f"imports lead too far: {limit}", span)
            return None
        try:
            source = _shipped(name) if path is None else Source(name, read_text(path))
        except Unreadable as why:
            self._found.error("E0108", f"cannot read `{name}`: {why}", span, "imported here", fix=why.fix)
            return None
        return self._module(key, source, path.parent if path else None)


# The library is the same for every layer that a process compiles.


@cache
def _shipped(name: str) -> Source:
    return Source(name, (files("moec.frontend") / name).read_text(encoding="utf-8"))


@cache
def _parsed(source: Source) -> ast.File:
    return parse(source)
