"""Which layouts a file has, for which layers, under which loads."""

from __future__ import annotations

from dataclasses import dataclass, replace

from moec.diagnostics import Collector, did_you_mean
from moec.frontend import ast
from moec.frontend.check_layer import CheckedLayer
from moec.frontend.declarations import LayoutDeclaration
from moec.frontend.evaluate import Environment, Evaluator
from moec.frontend.layouts.check import check_layout
from moec.frontend.layouts.loads import CheckedLoad, read_load
from moec.frontend.layouts.meshes import CheckedMesh, read_mesh
from moec.frontend.model import Layer
from moec.frontend.modules import Module


@dataclass
class Layouts:
    """The meshes, loads and layouts of a file; each mesh and load is read once, when it is needed."""

    module: Module

    def __post_init__(self) -> None:
        self._loads: dict[str, CheckedLoad | None] = {}
        self._meshes: dict[str, CheckedMesh | None] = {}

    def check_names(self, found: Collector) -> None:
        """Report layers, meshes and loads that layouts speak of and that are not there; look at all of them."""
        declared = self.module.declarations
        layers = [one.name.text for one in declared.layers]
        loads = [one.name.text for one in declared.loads]
        meshes = [one.name.text for one in declared.meshes]
        for layout in declared.layouts:
            _known(found, layout.layer, layers, "layer")
            if layout.load is not None:
                _known(found, layout.load, loads, "load")
            if layout.mesh is not None:
                _known(found, layout.mesh, meshes, "mesh")
        for name in loads:
            self._load(found, name)
        for name in meshes:
            self._mesh(found, name)

    def check_use(self, found: Collector) -> None:
        """Warn of loads and meshes of which no layout speaks."""
        declared = self.module.declarations
        used = {layout.load.text for layout in declared.layouts if layout.load}
        for load in declared.loads:
            if load.name.text not in used:
                said = f"no layout is under the load `{load.name.text}`"
                found.warning("W0017", said, load.name.span, "not used", fix="remove it")
        places = {layout.mesh.text for layout in declared.layouts if layout.mesh}
        for mesh in declared.meshes:
            if mesh.name.text not in places:
                said = f"no layout is on the mesh `{mesh.name.text}`"
                found.warning("W0018", said, mesh.name.span, "not used", fix="remove it")

    def of(self, layer: str) -> list[LayoutDeclaration]:
        """The layouts of a layer, in the order of the file."""
        return [one for one in self.module.declarations.layouts if one.layer.text == layer]

    def named(self, name: str) -> LayoutDeclaration | None:
        return next((one for one in self.module.declarations.layouts if one.name.text == name), None)

    def choose(self, found: Collector, layer: str, wanted: str | None) -> LayoutDeclaration | None:
        """The layout that is asked for, or the only one; None where there is none, or after an error."""
        layouts = self.of(layer)
        names = [one.name.text for one in layouts]
        listed = f"it has {', '.join(f'`{one}`' for one in names)}" if names else "it has none"
        if wanted is not None:
            chosen = next((one for one in layouts if one.name.text == wanted), None)
            if chosen is None:
                said, fix = f"layer `{layer}` has no layout `{wanted}`", did_you_mean(wanted, names, None)
                found.error("E0452", said, None, notes=[listed], fix=fix)
            return chosen
        if len(layouts) > 1:
            found.error(
                "E0452",
                f"layer `{layer}` has {len(layouts)} layouts, and none is chosen",
                layouts[0].name.span,
                notes=[listed],
                fix=f"choose one with `--layout {names[0]}`",
            )
            return None
        return layouts[0] if layouts else None

    def apply(self, found: Collector, declaration: LayoutDeclaration, checked: CheckedLayer) -> Layer | None:
        """The layer with this layout; None if `found` has got an error."""
        before = found.errors
        load = self._load(found, declaration.load.text) if declaration.load else None
        mesh = self._mesh(found, declaration.mesh.text) if declaration.mesh else None
        missing = (declaration.load and load is None) or (declaration.mesh and mesh is None)
        if found.errors > before or missing:
            if found.errors == before:
                self._unknown(found, declaration)
            return None
        layout = check_layout(found, declaration, checked, load, mesh)
        if layout is None:
            return None
        trace = (load.source,) if load and load.source else ()
        return replace(checked.layer, layout=layout, sources=(*checked.layer.sources, *trace))

    def _unknown(self, found: Collector, declaration: LayoutDeclaration) -> None:
        declared = self.module.declarations
        if declaration.load is not None:
            _known(found, declaration.load, [one.name.text for one in declared.loads], "load")
        if declaration.mesh is not None:
            _known(found, declaration.mesh, [one.name.text for one in declared.meshes], "mesh")

    def _mesh(self, found: Collector, name: str) -> CheckedMesh | None:
        if name not in self._meshes:
            declaration = next((one for one in self.module.declarations.meshes if one.name.text == name), None)
            constants = Evaluator(found, Environment(self.module, None))
            self._meshes[name] = read_mesh(found, declaration, constants) if declaration else None
        return self._meshes[name]

    def _load(self, found: Collector, name: str) -> CheckedLoad | None:
        if name not in self._loads:
            declaration = next((one for one in self.module.declarations.loads if one.name.text == name), None)
            constants = Evaluator(found, Environment(self.module, None))
            folder = self.module.folder
            self._loads[name] = read_load(found, declaration, constants, folder) if declaration else None
        return self._loads[name]


def _known(found: Collector, name: ast.Name, names: list[str], kind: str) -> None:
    if name.text not in names:
        listed = ", ".join(f"`{one}`" for one in names)
        found.error(
            "E0452",
            f"there is no {kind} `{name.text}`",
            name.span,
            f"unknown {kind}",
            notes=[f"the file has {listed}" if names else f"the file has no {kind}"],
            fix=did_you_mean(name.text, names, name.span),
        )
