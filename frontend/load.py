"""Reading and checking whole files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from moec.diagnostics import Collector, Diagnostic, Source, Span, did_you_mean
from moec.errors import DiagnosticError
from moec.frontend.check_layer import check_layer
from moec.frontend.declarations import LayerDeclaration
from moec.frontend.layouts.resolve import Layouts
from moec.frontend.lint import Lint
from moec.frontend.model import Layer
from moec.frontend.modules import Module, Modules
from moec.frontend.options import Defines, unknown_defines

NOTHING: Defines = {}


def load_layer(
    path: str | PathLike[str], layer: str | None = None, defines: Defines = NOTHING, layout: str | None = None
) -> Layer:
    """Read, check and resolve one layer of a file; `layer` may be left out where the file has only one.

    `defines` sets parameters of the layer, as `-D name=value` does; strings are read as values.  `layout` may be left
    out where the layer has one or none.  Raises DiagnosticError with everything that is wrong; warnings are kept on
    the layer.
    """
    found = Collector()
    modules = Modules(found)
    return _load(found, modules, modules.main(Path(path)), layer, defines, layout)


def load_layer_text(
    source: Source,
    folder: Path = Path(),
    layer: str | None = None,
    defines: Defines = NOTHING,
    layout: str | None = None,
) -> Layer:
    """As `load_layer`, of a text at hand; imports are relative to `folder`."""
    found = Collector()
    modules = Modules(found)
    return _load(found, modules, modules.text(source, folder), layer, defines, layout)


def check_file(path: str | PathLike[str], layer: str | None = None, defines: Defines = NOTHING) -> list[Diagnostic]:
    """Everything that is to be said about a file; without `layer`, all its layers and layouts are checked."""
    found = Collector()
    modules = Modules(found)
    module = modules.main(Path(path))
    unused = Collector()
    if module is None or not _linted(found, unused, modules, module):
        return found.diagnostics
    layers = module.declarations.layers
    chosen: Sequence[LayerDeclaration] = layers
    if layer is not None:
        one = _choose(found, module, layer)
        chosen = [one] if one else []
    if chosen or defines:
        unknown_defines(found, list(chosen), defines)
    layouts = Layouts(module)
    for one in chosen:
        each = Collector()  # one layer's errors do not keep the next from being checked
        checked = check_layer(each, module, one, defines, modules.sources)
        if checked is not None:
            for layout in layouts.of(one.name.text):
                layouts.apply(each, layout, checked)
        found.extend(each.diagnostics)
    layouts.check_names(found)
    if not found.has_errors:
        layouts.check_use(found)
        found.extend(unused.diagnostics)
    return found.diagnostics


def _load(
    found: Collector, modules: Modules, module: Module | None, name: str | None, defines: Defines, layout: str | None
) -> Layer:
    unused = Collector()
    if module is None or not _linted(found, unused, modules, module):
        raise DiagnosticError(found.diagnostics)
    layouts = Layouts(module)
    asked = layouts.named(layout) if layout is not None and name is None else None
    declaration = _choose(found, module, asked.layer.text if asked else name)
    if declaration is not None:
        unknown_defines(found, [declaration], defines)
        checked = check_layer(found, module, declaration, defines, modules.sources)
        laid_out = layouts.choose(found, declaration.name.text, layout) if checked else None
        if checked and laid_out:
            applied = layouts.apply(found, laid_out, checked)
            checked = replace(checked, layer=applied) if applied else None
        if checked and not found.has_errors:
            return replace(checked.layer, warnings=(*unused.diagnostics, *found.diagnostics))
    raise DiagnosticError(found.diagnostics)


def _linted(found: Collector, unused: Collector, modules: Modules, main: Module) -> bool:
    """Check names everywhere; returns whether values are worth checking.

    A statement that was not understood makes its names unknown: one inside a body spoils that body alone, one at the
    top of a file all of them.  What is unused is worth a word in the main file only, and where nothing is wrong.
    """
    every = list(modules.every())
    whole = not found.has_errors
    if found.errors > sum(module.declarations.damage for module in every):
        return False
    for module in every:
        Lint(module, found, unused if module is main else Collector()).run()
    return whole


def _choose(found: Collector, module: Module, name: str | None) -> LayerDeclaration | None:
    layers = module.declarations.layers
    names = [layer.name.text for layer in layers]
    listed = ", ".join(f"`{one}`" for one in names)
    start = Span(module.source, 0, 0)
    if name is not None:
        for layer in layers:
            if layer.name.text == name:
                return layer
        found.error(
            "E0401",
            f"`{module.source.name}` has no layer `{name}`",
            None,
            notes=[f"it has {listed}" if names else "it has none"],
            fix=did_you_mean(name, names, None),
        )
    elif not layers:
        found.error("E0401", "the file declares no layer", start, fix="add `layer NAME(d = ...) { ... }`")
    elif len(layers) > 1:
        found.error(
            "E0401",
            f"the file declares {len(layers)} layers, and none is chosen",
            layers[0].name.span,
            notes=[f"they are {listed}"],
            fix=f"choose one with `--layer {names[0]}`",
        )
    else:
        return layers[0]
    return None
