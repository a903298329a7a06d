"""AST to declarations: resolves the first word of each statement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from moec.diagnostics import Collector, Fix, Span, did_you_mean
from moec.frontend import ast
from moec.frontend.declarations import (
    ApproxUse,
    Assertion,
    AxisDeclaration,
    Binding,
    Declarations,
    Definition,
    DeviceDeclaration,
    ExpertsUse,
    Import,
    InputDeclaration,
    LayerDeclaration,
    LayoutStatement,
    LoadDeclaration,
    LossUse,
    MeshDeclaration,
    Parameter,
    QuantizeUse,
    RouterUse,
    TokensUse,
    WrittenLayout,
)
from moec.frontend.declare_layout import LAYOUT_FORMS, LAYOUT_READ, LAYOUT_WORDS, kind_of, read_header, read_statement
from moec.frontend.declare_mesh import MESH_FORMS, MESH_WORDS, read_mesh_statement
from moec.frontend.layouts.extends import extend
from moec.frontend.words import Malformed, Words

EDITION = 1

FORMS = {
    "edition": "edition 1",
    "import": 'import NAME, NAME from "path.moe"',
    "router": "router NAME(PARAMETERS) { BINDINGS }",
    "expert": "expert NAME(PARAMETERS) = EXPRESSION` or `expert NAME(PARAMETERS) { BINDINGS }",
    "layer": "layer NAME(PARAMETERS) { STATEMENTS }",
    "layer.router": "router NAME(ARGUMENTS) : DTYPE",
    "layer.experts": "experts NAME[COUNT] = EXPERT(ARGUMENTS) : DTYPE",
    "layer.shared": "shared NAME[COUNT] = EXPERT(ARGUMENTS) : DTYPE",
    "layer.tokens": "tokens dropless` or `tokens capacity(FACTOR, minimum = N, order = token, overflow = drop)",
    "layer.quantize": 'quantize coldest(GROUP, N, by = "COUNTS.json") as FORMAT` '
    "or `quantize experts(GROUP, NUMBER, FIRST..LAST) as FORMAT",
    "layer.approx": "approx rows as int8",
    "layer.loss": "loss balance(WEIGHT, over = batch)` or `loss z(WEIGHT)",
    "assert": 'assert CONDITION, "text"',
    "input": "input NAME[SHAPE] : DTYPE",
    "binding": "NAME = EXPRESSION",
    "load": "load NAME { batch = FIRST..LAST; routing = ROUTING }",
    **MESH_FORMS,
    **LAYOUT_FORMS,
}
"""The form of each statement, for messages and the reference; ` or ` joins two."""

FILE_WORDS = ("edition", "import", "router", "expert", "layer", "mesh", "load", "layout")
LAYER_WORDS = ("router", "experts", "shared", "tokens", "quantize", "approx", "loss", "assert")
BODY_WORDS = ("input", "assert")
LOAD_WORDS = ("batch", "routing")

_WORDS_OF = {"layer": LAYER_WORDS, "layout": LAYOUT_WORDS, "mesh": MESH_WORDS}
"""The words that statements of a block begin with."""

LayerStatement = Binding | RouterUse | ExpertsUse | TokensUse | QuantizeUse | ApproxUse | LossUse | Assertion
T = TypeVar("T")


def declare(file: ast.File, found: Collector) -> Declarations:
    """What a file declares; statements that are malformed are reported and left out."""
    return _Declare(found).file(file)


class _Declare:
    def __init__(self, found: Collector) -> None:
        self._found = found

    def file(self, file: ast.File) -> Declarations:
        self._edition(file)
        imports: list[Import] = []
        definitions: list[Definition] = []
        layers: list[LayerDeclaration] = []
        loads: list[LoadDeclaration] = []
        layouts: list[WrittenLayout] = []
        meshes: list[MeshDeclaration] = []
        for i, statement in enumerate(file.statements):
            match statement.head.text:
                case "edition":
                    if i:
                        fix = "remove it" if file.statements[0].head.text == "edition" else "move it up"
                        said = "`edition` must be the first statement, and the only one of its kind"
                        self._found.error("E0107", said, statement.span, fix=fix)
                case "import":
                    imports.extend(self._formed("import", statement, self._import))
                case "router" | "expert":
                    kind = statement.head.text
                    definitions.extend(self._formed(kind, statement, self._definition))
                case "layer":
                    layers.extend(self._formed("layer", statement, self._layer))
                case "load":
                    loads.extend(self._formed("load", statement, self._load))
                case "mesh":
                    meshes.extend(self._formed("mesh", statement, self._mesh))
                case "layout":
                    layouts.extend(self._formed("layout", statement, self._layout))
                case _:
                    self._unknown(statement, FILE_WORDS, "a file")
        whole = extend(self._found, layouts)
        declared = (tuple(imports), tuple(definitions), tuple(layers), tuple(loads), whole, tuple(meshes))
        return Declarations(file.source, *declared)

    def _edition(self, file: ast.File) -> None:
        first = file.statements[0] if file.statements else None
        if first is None or first.head.text != "edition":
            span = Span(file.source, first.span.start, first.head.span.end) if first else Span(file.source, 0, 0)
            self._found.error(
                "E0107",
                "the file does not say which edition of the language it is written in",
                span,
                "the first statement must be `edition 1`",
                fix=Fix("begin the file with `edition 1`", Span(file.source, 0, 0), f"edition {EDITION}\n"),
            )
            return
        match first.words:
            case (ast.Number(value=int() as number),) if first.block is None:
                if number != EDITION:
                    self._found.error(
                        "E0107",
                        f"edition {number} is not known",
                        first.words[0].span,
                        "this moec reads edition 1",
                        fix="use a newer moec, or write `edition 1`",
                    )
            case _:
                self._malformed("edition", Malformed(first.span, "this is not an edition"))

    # one statement

    def _formed(self, form: str, statement: ast.Statement, read: Callable[[ast.Statement], T]) -> list[T]:
        try:
            return [read(statement)]
        except Malformed as why:
            self._malformed(form, why)
            return []

    def _malformed(self, form: str, why: Malformed) -> None:
        word = form.rpartition(".")[2]
        what = "this binding" if form == "binding" else f"this `{word}` statement"
        forms = FORMS[form]
        if why.extra in _words_beside(form):
            source = why.span.source
            end = len(source.text[: why.span.start].rstrip())
            self._found.error(
                "E0106",
                f"{what} does not end before the next one",
                why.span,
                "this begins another statement",
                notes=["a statement ends with its line, or with `;`"],
                fix=Fix(f"write `;` in front of `{why.extra}`", Span(source, end, end), ";"),
            )
            return
        self._found.error(
            "E0106",
            f"{what} does not have the form it needs",
            why.span,
            why.why,
            fix=why.fix or f"write it as `{forms}`",
        )

    def _unknown(self, statement: ast.Statement, known: tuple[str, ...], where: str) -> None:
        head = statement.head
        listed = ", ".join(f"`{word}`" for word in known)
        notes = [f"the statements of {where} are {listed}"]
        if where in ("a router", "an expert", "a layer"):
            notes[0] += ", and bindings `name = expression`"
        self._found.error(
            "E0105",
            f"no statement of {where} begins with `{head.text}`",
            head.span,
            "unknown statement",
            notes=notes,
            fix=did_you_mean(head.text, known, head.span),
        )

    def _import(self, statement: ast.Statement) -> Import:
        words = Words(statement)
        names = [words.name()]
        while words.skip(","):
            names.append(words.name())
        words.keyword("from")
        path = words.expression("a path in quotes")
        if not isinstance(path, ast.String):
            raise Malformed(path.span, "expected a path in quotes")
        words.end()
        return Import(statement.span, tuple(names), path.value, path.span)

    def _head(self, words: Words) -> tuple[ast.Name, tuple[Parameter, ...]]:
        """The `NAME(PARAMETERS)` of a definition."""
        head = words.expression("a name and parameters")
        if isinstance(head, ast.Name):
            return head, ()
        if not isinstance(head, ast.Call):
            raise Malformed(head.span, "expected a name and its parameters, `NAME(a, b = 1)`")
        parameters: list[Parameter] = []
        for argument in head.arguments:
            if argument.name is not None:
                parameters.append(Parameter(argument.name, argument.value))
            elif isinstance(argument.value, ast.Name):
                parameters.append(Parameter(argument.value, None))
            else:
                raise Malformed(argument.value.span, "a parameter is a name, or `name = default`")
        return head.function, tuple(parameters)

    def _definition(self, statement: ast.Statement) -> Definition:
        kind = statement.head.text
        words = Words(statement)
        name, parameters = self._head(words)
        if kind == "expert" and words.skip("="):
            value = words.expression()
            words.end()
            return Definition(statement.span, kind, name, parameters, (Binding(value.span, None, value),))
        if words.peek("="):
            words.fail("a router names its outputs `pick` and `weight`, so it needs a block")
        words.end(block=True)
        body: list[Binding | InputDeclaration | Assertion] = []
        before = self._found.errors
        for inner in statement.block or ():
            if _binds(inner):
                body.extend(self._formed("binding", inner, self._binding))
            elif inner.head.text == "input":
                body.extend(self._formed("input", inner, self._input))
            elif inner.head.text == "assert":
                body.extend(self._formed("assert", inner, self._assertion))
            else:
                self._unknown_in_body(inner, kind)
        return Definition(statement.span, kind, name, parameters, tuple(body), self._found.errors - before)

    def _unknown_in_body(self, statement: ast.Statement, kind: str) -> None:
        where = "a router" if kind == "router" else "an expert"
        self._unknown(statement, BODY_WORDS, where)

    def _binding(self, statement: ast.Statement) -> Binding:
        words = Words(statement)
        words.punctuation("=")
        value = words.expression()
        dtype = words.optional(":")
        words.end()
        return Binding(statement.span, statement.head, value, dtype)

    def _input(self, statement: ast.Statement) -> InputDeclaration:
        words = Words(statement)
        name, shape = self._indexed(words)
        words.punctuation(":")
        dtype = words.expression("a dtype")
        words.end()
        return InputDeclaration(statement.span, name, shape, dtype)

    def _assertion(self, statement: ast.Statement) -> Assertion:
        words = Words(statement)
        condition = words.expression("a condition")
        text = words.optional(",")
        if text is not None and not isinstance(text, ast.String):
            raise Malformed(text.span, "expected a text in quotes")
        words.end()
        return Assertion(statement.span, condition, text.value if text else None)

    def _indexed(self, words: Words) -> tuple[ast.Name, tuple[ast.Expr, ...]]:
        target = words.expression("a name")
        if isinstance(target, ast.Name):
            return target, ()
        if isinstance(target, ast.Index) and isinstance(target.base, ast.Name):
            return target.base, target.indices
        raise Malformed(target.span, "expected a name, or `name[...]`")

    def _layer(self, statement: ast.Statement) -> LayerDeclaration:
        words = Words(statement)
        name, parameters = self._head(words)
        words.end(block=True)
        body: list[LayerStatement] = []
        before = self._found.errors
        for inner in statement.block or ():
            word = inner.head.text
            if _binds(inner):
                body.extend(self._formed("binding", inner, self._binding))
            elif word == "assert":
                body.extend(self._formed(word, inner, self._assertion))
            elif word in LAYER_WORDS:
                body.extend(self._formed(f"layer.{word}", inner, self._layer_statement))
            else:
                self._unknown(inner, LAYER_WORDS, "a layer")
        return LayerDeclaration(statement.span, name, parameters, tuple(body), self._found.errors - before)

    def _layer_statement(self, statement: ast.Statement) -> LayerStatement:
        words = Words(statement)
        made: LayerStatement
        match statement.head.text:
            case "router":
                made = RouterUse(statement.span, words.expression("a router"), words.optional(":"))
            case "tokens":
                made = TokensUse(statement.span, words.expression("`dropless` or `capacity(...)`"))
            case "quantize":
                chosen = words.expression("`coldest(...)` or `experts(...)`")
                words.keyword("as")
                made = QuantizeUse(statement.span, chosen, words.expression("a format"))
            case "approx":
                what = words.name("`rows`")
                words.keyword("as")
                made = ApproxUse(statement.span, what, words.name("`int8`"))
            case "loss":
                made = LossUse(statement.span, words.expression("`balance(...)` or `z(...)`"))
            case _:
                shared = statement.head.text == "shared"
                name, counts = self._indexed(words)
                if len(counts) > 1 or not (counts or shared):
                    raise Malformed(name.span, "expected `NAME[COUNT]`, how many experts there are")
                words.punctuation("=")
                value = words.expression("an expert")
                count = counts[0] if counts else None
                made = ExpertsUse(statement.span, shared, name, count, value, words.optional(":"))
        words.end()
        return made

    def _load(self, statement: ast.Statement) -> LoadDeclaration:
        words = Words(statement)
        name = words.name()
        words.end(block=True)
        body: list[Binding] = []
        before = self._found.errors
        for inner in statement.block or ():
            if _binds(inner) or inner.head.text in LOAD_WORDS:
                body.extend(self._formed("binding", inner, self._binding))
            else:
                self._unknown(inner, LOAD_WORDS, "a load")
        return LoadDeclaration(statement.span, name, tuple(body), self._found.errors - before)

    def _layout(self, statement: ast.Statement) -> WrittenLayout:
        header = read_header(Words(statement), statement)
        body: list[LayoutStatement] = []
        before = self._found.errors
        for inner in statement.block or ():
            if inner.head.text in LAYOUT_READ:
                body.extend(self._formed(f"layout.{kind_of(inner)}", inner, read_statement))
            else:
                self._unknown(inner, LAYOUT_WORDS, "a layout")
        return replace(header, body=tuple(body), damage=self._found.errors - before)

    def _mesh(self, statement: ast.Statement) -> MeshDeclaration:
        words = Words(statement)
        name = words.name()
        words.end(block=True)
        body: list[AxisDeclaration | DeviceDeclaration] = []
        before = self._found.errors
        for inner in statement.block or ():
            if inner.head.text in MESH_WORDS:
                body.extend(self._formed(f"mesh.{inner.head.text}", inner, read_mesh_statement))
            else:
                self._unknown(inner, MESH_WORDS, "a mesh")
        return MeshDeclaration(statement.span, name, tuple(body), self._found.errors - before)


def _binds(statement: ast.Statement) -> bool:
    match statement.words:
        case (ast.Punctuation(text="="), *_):
            return True
    return False


def _words_beside(form: str) -> tuple[str, ...]:
    """What may begin a statement beside one of this form."""
    block, inside, _ = form.rpartition(".")
    return _WORDS_OF.get(block, ()) if inside else FILE_WORDS if form in FILE_WORDS else BODY_WORDS
