"""Reads `load NAME { batch = 1..4096; routing = zipf(1.2) }`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moec.artifact.traffic import MOST_TOKENS, STEEPEST, Load, Observed, Routing, Uniform, Zipf
from moec.diagnostics import Collector, Label, Source, Span, did_you_mean
from moec.frontend import ast
from moec.frontend.declarations import Binding, LoadDeclaration
from moec.frontend.evaluate import Evaluator
from moec.frontend.layouts.conditions import UnknownNumber, number_of
from moec.frontend.mistake import Mistake
from moec.frontend.traces import read_trace
from moec.trace import Header

ROUTINGS = {"uniform": "uniform", "zipf": "zipf(EXPONENT)", "trace": 'trace("FILE.trace")'}


@dataclass(frozen=True)
class CheckedLoad:
    """A load, and where its routing is written; `header` and `source` are those of its trace."""

    load: Load
    span: Span
    header: Header | None = None
    source: Source | None = None


def read_load(
    found: Collector, declaration: LoadDeclaration, constants: Evaluator, folder: Path | None
) -> CheckedLoad | None:
    """The load; None after reporting what is wrong with it."""
    reader = _Reader(constants, folder)
    before = found.errors
    given: dict[str, Binding] = {}
    tokens: tuple[int, int] | None = None
    routing: Routing = Uniform()
    for binding in declaration.body:
        try:
            match _name(binding, given):
                case "batch":
                    tokens = reader.tokens(binding.value)
                case "routing":
                    routing = reader.routing(binding.value)
        except Mistake as mistake:
            mistake.report(found)
        except UnknownNumber:
            continue
    if "batch" not in given and not declaration.damage:
        found.error(
            "E0450",
            f"load `{declaration.name.text}` does not say how many tokens a call has",
            declaration.name.span,
            "`batch` is missing",
            fix="add `batch = 1..4096`",
        )
    if found.errors > before or tokens is None:
        return None
    span = given["routing"].value.span if "routing" in given else declaration.name.span
    return CheckedLoad(Load(declaration.name.text, tokens, routing), span, reader.header, reader.source)


def _name(binding: Binding, given: dict[str, Binding]) -> str:
    """What a binding says; raises Mistake for what is unknown or said twice."""
    name = binding.name
    assert name is not None
    if name.text not in ("batch", "routing"):
        raise Mistake(
            "E0450",
            f"a load says nothing about `{name.text}`",
            name.span,
            "unknown",
            notes=["a load has `batch = FIRST..LAST` and `routing = ...`"],
            fix=did_you_mean(name.text, ("batch", "routing"), name.span),
        )
    if name.text in given:
        raise Mistake(
            "E0450",
            f"a load has one `{name.text}`",
            binding.span,
            "this is another",
            also=[Label(given[name.text].span, "the first")],
            fix="remove one",
        )
    given[name.text] = binding
    return name.text


@dataclass
class _Reader:
    constants: Evaluator
    folder: Path | None
    header: Header | None = None
    source: Source | None = None

    def tokens(self, expr: ast.Expr) -> tuple[int, int]:
        ends = (expr.first, expr.last) if isinstance(expr, ast.Range) else (expr, expr)
        first, last = (self._tokens(end) for end in ends)
        if first > last:
            raise Mistake("E0450", "this range is empty", expr.span, f"{first} is above {last}", fix="turn it around")
        return first, last

    def _tokens(self, expr: ast.Expr) -> int:
        number = number_of(expr, self.constants, "E0450", "the tokens of a call")
        if not isinstance(number, int) or not 0 <= number <= MOST_TOKENS:
            raise Mistake("E0450", "the tokens of a call are a whole number below 2^31", expr.span, f"this is {number}")
        return number

    def routing(self, expr: ast.Expr) -> Routing:
        match expr:
            case ast.Name(text="uniform"):
                return Uniform()
            case ast.Call(function=ast.Name(text="zipf"), arguments=(ast.Argument(name=None, value=value),)):
                exponent = number_of(value, self.constants, "E0450", "the exponent of `zipf`")
                if not 0 <= exponent <= STEEPEST:
                    said = f"the exponent of `zipf` lies between 0 and {STEEPEST:g}"
                    raise Mistake("E0450", said, value.span, f"this is {exponent}")
                return Zipf(float(exponent))
            case ast.Call(
                function=ast.Name(text="trace"), arguments=(ast.Argument(name=None, value=ast.String() as path),)
            ):
                summary, self.source = read_trace(path, self.folder, "E0451")
                self.header = summary.header
                return Observed(tuple(summary.counts), tuple(sorted(summary.histogram.items())))
        name = expr.function if isinstance(expr, ast.Call) else expr
        text = name.text if isinstance(name, ast.Name) else ""
        forms = ", ".join(f"`{form}`" for form in ROUTINGS.values())
        near = did_you_mean(text, ROUTINGS, name.span) if text not in ROUTINGS else None
        raise Mistake(
            "E0450",
            "this is not how choices can fall on experts",
            expr.span,
            "no known routing",
            notes=[f"a routing is one of {forms}"],
            fix=f"write `{ROUTINGS[text]}`" if text in ROUTINGS else near,
        )
