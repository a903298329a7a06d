"""What a person is told about text that does not parse."""

from __future__ import annotations

import re

from lark import Token, UnexpectedCharacters, UnexpectedToken

from moec.diagnostics import Collector, Fix, Label, Source, Span, did_you_mean
from moec.frontend.tokens import DEEPEST as DEEPEST_BRACKETS
from moec.frontend.tokens import BracketError, TooDeep
from moec.frontend.units import UNITS

KEYWORDS = ("over", "and", "or", "not", "when")
BRACKETS = {"LPAR": "(", "LSQB": "[", "LBRACE": "{", "RPAR": ")", "RSQB": "]", "RBRACE": "}"}

_UNIT = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*(/[a-zA-Z]+)?")
_RATE = re.compile(r"([kKmMgGtT])i?([bB])(?:ps|/s|/sec)")
_INSTEAD = {
    "&": "write `and`",
    "|": "write `or`",
    "!": "write `not`, or `!=` to compare",
    "'": 'text stands in double quotes: "..."',
    "^": "write `pow(a, b)`, or `square(a)`",
    "@": "a matrix product is `linear(v, n)`",
    "→": "a binding is written `name = expression`",
    "×": "write `*`",
    "µ": "write `us` for microseconds",
    "μ": "write `us` for microseconds",
    "−": "write `-`",
    "–": "write `-`",
    "“": 'text stands in plain quotes: "..."',
    "”": 'text stands in plain quotes: "..."',
}


def _span(source: Source, token: Token) -> Span:
    start = token.start_pos or 0
    return Span(source, start, start + max(1, len(token)))


def too_large(found: Collector, source: Source, limit: int) -> None:
    found.error(
        "E0104",
        f"the file has {len(source.text):,} characters, more than the {limit:,} that are read",
        Span(source, 0, 0),
        fix="split it, and bring the parts together with `import`",
    )


def expression_too_deep(found: Collector, span: Span, limit: int) -> None:
    found.error(
        "E0104",
        f"this expression nests more than {limit} deep",
        span,
        "too deep",
        fix="bind parts of it to names",
    )


def bad_bracket(found: Collector, source: Source, error: BracketError | TooDeep) -> None:
    if isinstance(error, TooDeep):
        found.error(
            "E0104",
            f"brackets nest more than {DEEPEST_BRACKETS} deep",
            _span(source, error.token),
            fix="bind parts of the expression to names",
        )
        return
    opener, token = error.opener, error.token
    if token is None and opener is not None:
        close = {"(": ")", "[": "]", "{": "}"}[str(opener)]
        found.error(
            "E0103",
            f"this `{opener}` is never closed",
            _span(source, opener),
            f"no `{close}` for it before the end of the file",
            fix=f"add `{close}`",
        )
    elif token is not None and opener is None:
        found.error(
            "E0103", f"this `{token}` closes nothing", _span(source, token), "no bracket is open here", fix="remove it"
        )
    elif token is not None:
        span = _span(source, token)
        close = {"(": ")", "[": "]", "{": "}"}[str(opener)]
        found.error(
            "E0103",
            f"`{token}` cannot close `{opener}`",
            span,
            f"expected `{close}`",
            also=[Label(_span(source, opener), "opened here")] if opener is not None else (),
            fix=Fix(f"close `{opener}` first: write `{close}` before this `{token}`"),
        )


def bad_character(found: Collector, source: Source, error: UnexpectedCharacters) -> tuple[int, int]:
    """Report a character that no token starts with; returns the part of the text to leave out."""
    start = error.pos_in_stream or 0
    character = source.text[start : start + 1]
    line_end = len(source.line(Span(source, start, start).line)) + source.line_start(Span(source, start, start).line)
    if character == '"':
        found.error(
            "E0102",
            "this text has no closing quote",
            Span(source, start, line_end),
            fix='close it with `"` on its line',
        )
    else:
        shown = character if character.isprintable() else f"U+{ord(character):04X}"
        found.error(
            "E0102",
            f"`{shown}` means nothing here",
            Span(source, start, start + 1),
            "unknown character",
            fix=_INSTEAD.get(
                character, "names are made of ASCII letters, digits and `_`" if character.isalpha() else None
            ),
        )
    line_start = source.line_start(Span(source, start, start).line)
    return line_start, line_end


def bad_token(found: Collector, source: Source, error: UnexpectedToken) -> int:
    """Report a token that does not fit; returns where it is."""
    token: Token = error.token
    if token.type == "$END":
        end = len(source.text.rstrip())
        found.error("E0101", "the file ends in the middle of a statement", Span(source, end, end), "more must follow")
        return end
    span = _span(source, token)
    before = source.text[: span.start].rstrip(" \t")
    starts_line = not before or before[-1] in "\r\n;{"
    text = str(token)
    if token.type == "_SEP":
        line_end = len(source.text[: span.start].rstrip())
        found.error(
            "E0101",
            "the line ends in the middle of an expression",
            Span(source, max(0, line_end - 1), line_end),
            _open_choice(error) or "something must follow",
            notes=["a line end ends a statement, except inside `( )` and `[ ]`"],
            fix="finish the expression on this line, or put it in parentheses to go on on the next",
        )
    elif text == "{":
        found.error(
            "E0101",
            "`{` stands where no block can begin",
            span,
            fix="a block begins on the line of its statement: `layer NAME(...) {`" if starts_line else None,
        )
    elif text in KEYWORDS:
        found.error(
            "E0101",
            f"`{text}` is a word of the language, not a name",
            span,
            fix=_keyword_fix(text, starts_line),
        )
    elif token.type == "EQUAL":
        found.error(
            "E0101",
            "`=` cannot stand here",
            span,
            notes=["`=` binds a name (`name = expression`) or an argument (`f(name = value)`)"],
            fix=Fix("to compare, write `==`", span, "=="),
        )
    elif (fix := _foreign(source, span, starts_line)) is not None:
        found.error("E0101", f"`{text}` is unexpected here", span, fix=fix)
    elif starts_line and token.type in ("ADD", "MULTIPLY", "COMPARE", "OR", "AND", "QMARK", "DOT", "COLON"):
        found.error(
            "E0101",
            f"a line cannot begin with `{text}`",
            span,
            notes=["a line end ends a statement, except inside `( )` and `[ ]`"],
            fix="put the whole expression in parentheses, or move this to the end of the line before",
        )
    elif starts_line:
        found.error("E0101", f"a statement cannot begin with `{text}`", span, "expected a name here")
    elif before.endswith("}"):
        found.error("E0101", f"`{text}` follows a block on its line", span, fix="begin a new line here")
    else:
        fix = _unit(source, span) if token.type == "NAME" and before[-1:].isdigit() else None
        found.error("E0101", f"`{text}` is unexpected here", span, _expectation(error), fix=fix)
    return span.start


def _foreign(source: Source, span: Span, starts_line: bool) -> Fix | None:
    """What to write for what other languages have."""
    line = source.text[source.line_start(span.line) : span.start]
    if starts_line and span.text in ("//", "/"):
        return Fix("a comment begins with `#`")
    if "//" in line:
        return Fix("a comment begins with `#`; `//` divides whole numbers")
    pair = Span(source, span.start - 1, span.end)
    if pair.text == "=>":
        return Fix("did you mean `>=`?", pair, ">=")
    if pair.text == "**":
        return Fix("write `pow(a, b)`, or `square(a)`")
    return None


def _unit(source: Source, span: Span) -> Fix | None:
    """What to say of a word behind a number that is no unit.  A small `b` are bits, of which a byte has eight."""
    word = _UNIT.match(source.text, span.start)
    if word is None:
        return None
    whole = Span(source, word.start(), word.end())
    rate = _RATE.fullmatch(word.group())
    if rate:
        unit = f"{rate[1].upper()}{'bit' if rate[2] == 'b' else 'B'}/s"
        return Fix(f"did you mean `{unit}`?", whole, unit)
    return did_you_mean(word.group(), UNITS, whole)


def _keyword_fix(text: str, starts_line: bool) -> str:
    if starts_line or text == "when":
        return f"choose another name, such as `{text}_`"
    return "put it and its operand in parentheses" if text == "not" else "put an operand on both sides of it"


def _expectation(error: UnexpectedToken) -> str:
    expected = set(error.expected or ())
    closing = [BRACKETS[name] for name in ("RPAR", "RSQB") if name in expected]
    if "NUMBER" in expected:
        return f"expected an expression{''.join(f' or `{one}`' for one in closing)}"
    if closing:
        return f"expected an operator, `,` or `{closing[0]}`"
    if expected == {"NAME"}:
        return "expected a name"
    return _open_choice(error) or "this does not fit what stands before it"


def _open_choice(error: UnexpectedToken) -> str:
    """What to say where `condition ? yes` is left without its other half; empty elsewhere."""
    expected = set(error.expected or ())
    open_ = "COLON" in expected and "NAME" not in expected
    return "expected `:` and the other half of `condition ? yes : no`" if open_ else ""
