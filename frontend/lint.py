"""Checks that need no values: every name and call of a definition or layer, whether it is used or not."""

from __future__ import annotations

from collections.abc import Iterable

from moec.diagnostics import Collector, Span
from moec.frontend import ast
from moec.frontend.arguments import bind_operands, bind_parameters
from moec.frontend.declarations import Assertion, Binding, Definition, InputDeclaration, LayerDeclaration, Parameter
from moec.frontend.losses import READS
from moec.frontend.modules import Module
from moec.frontend.names import BUILTIN, duplicate, reserved, unknown_function, unknown_name
from moec.frontend.operations import OPERATIONS

OUTPUTS = {"router": ("pick", "weight"), "expert": ("y",)}


class Lint:
    """Reports unknown, doubled and early names of one module to `found`, and unused ones to `unused`."""

    def __init__(self, module: Module, found: Collector, unused: Collector) -> None:
        self._module = module
        self._found = found
        self._unused_found = unused
        self._called: set[str] = set()

    def run(self) -> None:
        for definition in self._module.declarations.definitions:
            if not definition.damage:
                self._definition(definition)
        for layer in self._module.declarations.layers:
            if not layer.damage:
                self._layer(layer)
        for one in self._module.declarations.imports:
            for name in one.names:
                if name.text in self._module.scope and name.text not in self._called:
                    said = f"`{name.text}` is imported but not used"
                    self._unused_found.warning("W0003", said, name.span, fix="remove it")

    def _definition(self, definition: Definition) -> None:
        router = definition.kind == "router"
        implicit = ("x", "d", "count") if router else ("x", "d")
        names = _Names(self._found, implicit, ("count",) if router else ())
        self._parameters(names, definition.parameters)
        named = [one for one in definition.body if not isinstance(one, Assertion)]
        later = {one.name.text: one.name.span for one in named if one.name}
        for statement in definition.body:
            if isinstance(statement, Assertion):
                self._expression(statement.condition, names, later)
                continue
            if isinstance(statement, InputDeclaration):
                for size in statement.shape:
                    self._expression(size, names, later)
                self._expression(statement.dtype, names, later)
            else:
                self._expression(statement.value, names, later)
                if statement.dtype:
                    self._expression(statement.dtype, names, later)
            if statement.name:
                names.bind(statement.name)
        outputs = OUTPUTS[definition.kind] if all(one.name for one in named) else ()
        for output in (*outputs, *(READS.values() if router else ())):
            names.used.add(output)
        self._outputs(definition, outputs, later)
        self._unused(names, definition.parameters)

    def _outputs(self, definition: Definition, outputs: Iterable[str], bound: Iterable[str]) -> None:
        for output in outputs:
            if output not in bound:
                meaning = {"pick": "which experts", "weight": "how much each counts", "y": "the expert's output"}
                self._found.error(
                    "E0404",
                    f"{definition.kind} `{definition.name.text}` never binds `{output}`",
                    definition.name.span,
                    f"`{output}` is missing",
                    notes=[f"`{output}` says {meaning[output]}"] if output != "y" else ["`y` is an expert's output"],
                    fix=f"add `{output} = ...`",
                )

    def _parameters(self, names: _Names, parameters: Iterable[Parameter]) -> None:
        for parameter in parameters:
            if parameter.default is not None:
                self._expression(parameter.default, names.only_parameters(), {})
            names.bind(parameter.name, parameter=True)

    def _layer(self, layer: LayerDeclaration) -> None:
        names = _Names(self._found, (), ())
        self._parameters(names, layer.parameters)
        names.used.add("d")
        later = {one.name.text: one.name.span for one in layer.body if isinstance(one, Binding) and one.name}
        for statement in layer.body:
            if isinstance(statement, Binding) and statement.name:
                self._expression(statement.value, names, later)
                names.bind(statement.name)
        # the remaining expressions are checked where they are evaluated; here only their names count as used
        layouts = [one for one in self._module.declarations.layouts if one.layer.text == layer.name.text]
        for word in (*_expressions(layer.body), *(word for one in layouts for word in _expressions(one.body))):
            for node in ast.walk(word):
                if isinstance(node, ast.Name):
                    names.used.add(node.text)
                    self._called.add(node.text)
                elif isinstance(node, ast.Call):
                    self._called.add(node.function.text)
        self._unused(names, layer.parameters)

    def _expression(self, expr: ast.Expr, names: _Names, later: dict[str, Span]) -> None:
        for node in ast.walk(expr):
            match node:
                case ast.Name():
                    if node.text in BUILTIN:
                        continue
                    if not names.use(node.text):
                        unknown_name(self._found, node, names.known, later.get(node.text))
                case ast.Call():
                    self._call(node)
                case ast.String():
                    self._found.error("E0302", "a text is not a value", node.span, "text is for `assert` and `import`")
                case ast.Attribute():
                    self._found.error(
                        "E0201", "`.` reads the figures of a layer's experts", node.span, "only in `assert`"
                    )

    def _call(self, call: ast.Call) -> None:
        name = call.function.text
        self._called.add(name)
        known = self._module.scope.get(name)
        if name in OPERATIONS:
            bind_operands(self._found, call, OPERATIONS[name])
        elif known is None:
            unknown_function(self._found, call.function, self._module.scope)
        else:
            bind_parameters(self._found, call, known.definition.parameters)

    def _unused(self, names: _Names, parameters: Iterable[Parameter]) -> None:
        of_definition = {parameter.name.text for parameter in parameters}
        for text, span in names.bound.items():
            if text in names.used or text.startswith("_"):
                continue
            if text in of_definition:
                self._unused_found.warning("W0002", f"parameter `{text}` is not used", span, fix="remove it")
            else:
                self._unused_found.warning("W0001", f"`{text}` is bound but not used", span, fix="remove the binding")


class _Names:
    """The names of one body: those bound so far, and those that were used."""

    def __init__(self, found: Collector, implicit: tuple[str, ...], reserved_here: tuple[str, ...]) -> None:
        self._found = found
        self._implicit = implicit
        self._reserved = reserved_here
        self.bound: dict[str, Span] = {}
        self.used: set[str] = set()

    @property
    def known(self) -> list[str]:
        return [*self._implicit, *self.bound]

    def only_parameters(self) -> _Names:
        """The same names without x: what a default may use."""
        inner = _Names(self._found, (), ())
        inner.bound, inner.used = self.bound, self.used
        return inner

    def bind(self, name: ast.Name, parameter: bool = False) -> None:
        if reserved(self._found, name, self._reserved if parameter else (*self._reserved, *self._implicit)):
            return
        if name.text in self.bound:
            duplicate(self._found, name, self.bound[name.text])
        else:
            self.bound[name.text] = name.span

    def use(self, text: str) -> bool:
        self.used.add(text)
        return text in self.bound or text in self._implicit


def _expressions(body: Iterable[object]) -> Iterable[ast.Expr]:
    for statement in body:
        for value in vars(statement).values():
            if isinstance(value, ast.Expr):
                yield value
            elif isinstance(value, tuple):  # the options of `recompile`
                yield from _expressions(value)
