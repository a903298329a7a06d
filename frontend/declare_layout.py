"""Statements of `layout` to declarations."""

from __future__ import annotations

from moec.diagnostics import closest
from moec.frontend import ast
from moec.frontend.declarations import ColdestUse, LayoutStatement, Option, PageUse, RecompileUse, SpecialiseUse
from moec.frontend.units import BYTES, SECONDS
from moec.frontend.words import Malformed, Words

LAYOUT_WORDS = ("recompile", "specialise", "approx", "page")
LAYOUT_READ = (*LAYOUT_WORDS, "quantize")
"""The words that statements begin with, and one of which the checker says that it needs `approx`."""

LAYOUT_FORMS = {
    "layout": "layout NAME for LAYER under LOAD { STATEMENTS }",
    "layout.recompile": "recompile when CONDITION for N calls, hysteresis H, gain G, max N variants",
    "layout.specialise": "specialise tokens(FIRST..LAST, FIRST..LAST)",
    "layout.approx": "approx capacity(LOW..HIGH)` or `approx quantize coldest(GROUP, N) as FORMAT",
    "layout.quantize": "approx quantize coldest(GROUP, N) as FORMAT",
    "layout.page": "page GROUP within N GiB",
}


def read_statement(statement: ast.Statement) -> LayoutStatement:
    """A statement whose first word is one of LAYOUT_READ.  Raises Malformed."""
    words = Words(statement)
    made: LayoutStatement
    match statement.head.text:
        case "recompile":
            made = _recompile(statement, words)
        case "page":
            group = words.name("a group of experts")
            words.keyword("within")
            made = PageUse(statement.span, group, words.expression("a number of bytes"))
        case "quantize":
            made = _quantize(statement, words, False)
        case "approx" if words.next_name() == "quantize":
            words.name()
            made = _quantize(statement, words, True)
        case head:
            call = words.expression("`capacity(...)` or `quantize`" if head == "approx" else "`tokens(...)`")
            made = SpecialiseUse(statement.span, head == "approx", call)
    words.end()
    return made


def _quantize(statement: ast.Statement, words: Words, approx: bool) -> ColdestUse:
    chosen = words.expression("`coldest(...)`")
    words.keyword("as")
    return ColdestUse(statement.span, approx, chosen, words.expression("a format"))


def _recompile(statement: ast.Statement, words: Words) -> RecompileUse:
    words.punctuation("when")
    when = words.expression("a condition")
    _refuse_unit(when, words)
    words.keyword("for")
    window = words.expression("a number of calls, or a time")
    unit = words.name() if words.next_name() else None
    options: list[Option] = []
    while words.skip(","):
        name = words.name("`hysteresis`, `gain` or `max`")
        value = words.expression("a number")
        options.append(Option(name, value, words.name() if words.next_name() else None))
    return RecompileUse(statement.span, when, window, unit, tuple(options))


def _refuse_unit(when: ast.Expr, words: Words) -> None:
    """Say so where a condition ends early because a word behind a number is no unit: `memory > 2 GB`."""
    following = words.next_expression()
    leftmost = following
    while isinstance(leftmost, ast.Binary):
        leftmost = leftmost.left
    ends_in_number = when.span.text[-1:].isdigit()
    if not isinstance(leftmost, ast.Name) or leftmost.text == "for" or not ends_in_number:
        return
    near = closest(leftmost.text, (*BYTES, *SECONDS))
    hint = f"did you mean `{near}`?" if near else f"units of bytes are {', '.join(f'`{unit}`' for unit in BYTES)}"
    raise Malformed(leftmost.span, f"`{leftmost.text}` is no unit; {hint}")
