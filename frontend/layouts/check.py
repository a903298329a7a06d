"""A layout's declaration to a checked layout."""

from __future__ import annotations

from collections.abc import Sequence

from moec.artifact.policy import DEFAULT_VARIANTS, Coldest, Page, Policy
from moec.diagnostics import Collector, Label, Span
from moec.frontend.check_layer import CheckedLayer
from moec.frontend.declarations import (
    ColdestUse,
    LayoutDeclaration,
    MeshStatement,
    PageUse,
    RecompileUse,
    SpecialiseUse,
)
from moec.frontend.layouts.advice import Written, advise
from moec.frontend.layouts.conditions import UnknownNumber
from moec.frontend.layouts.extends import report
from moec.frontend.layouts.loads import CheckedLoad
from moec.frontend.layouts.measures import bounds_of
from moec.frontend.layouts.meshes import CheckedMesh
from moec.frontend.layouts.permissions import kind_of, read_capacity, read_coldest, read_page, read_tokens
from moec.frontend.layouts.recompile import read_recompile
from moec.frontend.layouts.spread import spread
from moec.frontend.mistake import Mistake
from moec.frontend.model import Layout

MOST_TRIGGERS = 64


def check_layout(
    found: Collector,
    declaration: LayoutDeclaration,
    checked: CheckedLayer,
    load: CheckedLoad | None,
    mesh: CheckedMesh | None,
) -> Layout | None:
    """The checked layout of a layer; None if `found` has got an error."""
    return _CheckLayout(found, declaration, checked, load, mesh).check()


class _CheckLayout:
    def __init__(
        self,
        found: Collector,
        declaration: LayoutDeclaration,
        checked: CheckedLayer,
        load: CheckedLoad | None,
        mesh: CheckedMesh | None,
    ) -> None:
        self._found = found
        self._declaration = declaration
        self._checked = checked
        self._load = load.load if load else None
        self._mesh = mesh
        self._triggers: list[Written] = []
        self._variants: tuple[int, Span] | None = None
        self._tokens: list[tuple[int, int]] = []
        self._capacity: tuple[float, float] | None = None
        self._coldest: list[Coldest] = []
        self._page: Page | None = None
        self._first: dict[str, Span] = {}
        self._permissions: list[Span] = []
        if load is not None:
            self._same_layer(load)

    def check(self) -> Layout | None:
        wrong = not self._declaration.whole  # `found` may have got the same error of another layout
        parallel = None
        for use in self._declaration.body:
            if isinstance(use, MeshStatement):
                continue
            try:
                self._statement(use)
            except Mistake as mistake:
                report(self._found, mistake, use, self._declaration)
                wrong = True
            except UnknownNumber:
                wrong = True
        if self._mesh is not None:
            parallel = spread(self._found, self._declaration, self._checked, self._mesh, self._load)
            wrong |= parallel is None
        else:
            wrong |= not self._has_mesh()
        if wrong:
            return None
        self._advise()
        policy = Policy(
            layout=self._declaration.name.text,
            load=self._load,
            triggers=tuple(one.trigger for one in self._triggers),
            max_variants=self._variants[0] if self._variants else DEFAULT_VARIANTS,
            tokens=tuple(self._tokens),
            capacity=self._capacity,
            quantise=tuple(self._coldest),
            page=self._page,
        )
        return Layout(self._declaration.name.text, policy, self._declaration.span, parallel)

    def _same_layer(self, load: CheckedLoad) -> None:
        """A trace must be of a layer with as many experts and slots."""
        header, layer = load.header, self._checked.layer
        if header is None or (header.experts, header.slots) == (layer.routed.count, layer.router.slots):
            return
        self._found.error(
            "E0451",
            f"the trace of `{load.load.name}` is not one of layer `{layer.name}`",
            load.span,
            f"{header.experts:,} experts, {header.slots} slots",
            also=[Label(layer.routed.span, f"{layer.routed.count:,} experts, {layer.router.slots} slots")],
            fix="record a trace of this layer",
        )

    def _has_mesh(self) -> bool:
        """Report a statement that speaks of devices where there are none."""
        use = next((one for one in self._declaration.body if isinstance(one, MeshStatement)), None)
        if use is not None:
            name = self._declaration.name
            self._found.error(
                "E0461",
                f"layout `{name.text}` is on no mesh",
                use.span,
                "this speaks of devices",
                fix=f"write `layout {name.text} for {self._checked.layer.name} on MESH`, and declare "
                "`mesh MESH { axis gpu[2] }`",
            )
        return use is None

    def _statement(self, use: RecompileUse | SpecialiseUse | ColdestUse | PageUse) -> None:
        match use:
            case RecompileUse():
                self._recompile(use)
            case ColdestUse():
                one = read_coldest(self._found, use, self._checked)
                if one in self._coldest:
                    raise Mistake("E0458", "this is said twice", use.span, "the second", fix="remove it")
                self._coldest.append(one)
                self._permissions.append(use.span)
            case PageUse():
                self._once("page", use.span)
                self._page = read_page(self._found, use, self._checked)
            case SpecialiseUse():
                kind = kind_of(use)
                self._once(kind, use.span)
                if kind == "tokens":
                    self._tokens = read_tokens(self._found, use, self._checked, self._load)
                else:
                    self._capacity = read_capacity(use, self._checked)
                    self._permissions.append(use.span)

    def _once(self, what: str, span: Span) -> None:
        if what in self._first:
            first = Label(self._first[what], "the first")
            raise Mistake(
                "E0403", f"a layout says `{what}` once", span, "this is another", also=[first], fix="join them"
            )
        self._first[what] = span

    def _recompile(self, use: RecompileUse) -> None:
        if len(self._triggers) >= MOST_TRIGGERS:
            raise Mistake("E0454", f"a layout has at most {MOST_TRIGGERS} `recompile` statements", use.span)
        read = read_recompile(use, self._checked.constants)
        self._triggers.append(read.written)
        if read.variants is None:
            return
        if self._variants is not None and self._variants[0] != read.variants[0]:
            raise Mistake(
                "E0454",
                "a layout has one limit of variants",
                read.variants[1],
                f"{read.variants[0]} here",
                also=[Label(self._variants[1], f"{self._variants[0]} here")],
                fix="say it once: it holds for all statements",
            )
        self._variants = read.variants

    def _advise(self) -> None:
        layer = self._checked.layer
        factor = layer.tokens.factor if layer.tokens else None
        if factor is not None and self._capacity is not None:
            factor = min(factor, self._capacity[0])
        variants = self._variants[0] if self._variants else DEFAULT_VARIANTS
        copies = variants if self._tokens or self._coldest else 0
        bounds = bounds_of(layer, self._load, factor, copies, self._page is not None)
        advise(self._found, self._triggers, bounds, layer.routed.count)
        may_change = bool(self._tokens or self._permissions)
        if self._mesh is not None:
            self._follows_alone()
            return
        self._idle([one.span for one in self._triggers] if not may_change else [], "there is nothing that may change")
        self._idle(self._permissions if not self._triggers else [], "nothing asks for it: there is no `recompile when`")

    def _follows_alone(self) -> None:
        """Warn of what a layer does only in one process."""
        use = next((one for one in self._declaration.body if not isinstance(one, MeshStatement)), None)
        if use is not None and self._mesh is not None:
            self._found.warning(
                "W0019",
                "on a mesh this statement has no effect",
                use.span,
                "only a layer in one process follows its load",
                also=[Label(self._mesh.span, "the mesh")],
                fix="move it to a layout without `on`",
            )

    def _idle(self, spans: Sequence[Span], why: str) -> None:
        for span in spans[:1]:
            self._found.warning(
                "W0014",
                "this statement has no effect",
                span,
                why,
                notes=["`recompile when` says when, `specialise` and `approx` say what may change"],
            )
