"""`moec fmt`: one way to write a file.  Works on tokens, so that comments and line breaks stay where they are.

Two columns an open bracket, one space between words, at most one empty line; in runs of lines the `=` of bindings and
the comments behind statements stand beneath each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from string import ascii_letters

from moec.diagnostics import Source
from moec.frontend.parser import parse

INDENT = 2

_TOKEN = re.compile(
    r'(?P<space>[ \t]+)|(?P<newline>\r\n|\r|\n)|(?P<comment>\#[^\r\n]*)|(?P<string>"[^"\r\n]*")'
    r"|(?P<quantity>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?[ \t]*[KMGT](?:bit|B|FLOP)/s(?![a-zA-Z0-9_]))"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)|(?P<word>[a-zA-Z_][a-zA-Z0-9_]*)"
    r"|(?P<mark>==|!=|<=|>=|//|\.\.|[-+*/%<>=:,?;.()\[\]{}])"
)
_BINDING = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]* = ")
KEYWORDS = frozenset({"over", "and", "or", "not", "when"})


@dataclass
class _Line:
    """A line without its indentation.  `depth` counts brackets open at its start, `comment` stands behind `code`."""

    depth: int
    code: str
    comment: str
    blank_before: bool
    inside: bool
    """Does the line go on inside of parentheses that an earlier one opened?"""


def format_source(source: Source) -> str:
    """The formatted text.  Raises DiagnosticError if the source does not parse."""
    parse(source)
    lines = _lines(source.text)
    _align(lines)
    out: list[str] = []
    for line in lines:
        if line.blank_before and out:
            out.append("")
        text = " " * (INDENT * line.depth) + line.code
        out.append((text + line.comment if line.code else " " * (INDENT * line.depth) + line.comment).rstrip())
    return "\n".join(out) + "\n" if out else ""


def one_line(text: str) -> str:
    """An expression on one line, without comments."""
    kinds = ((match.lastgroup or "", match.group()) for match in _TOKEN.finditer(text))
    return _join([one for one in kinds if one[0] not in ("space", "newline", "comment")], True)


def _lines(text: str) -> list[_Line]:
    lines: list[_Line] = []
    brackets: list[str] = []
    tokens: list[tuple[str, str]] = []
    comment, blank, depth = "", False, 0

    def flush() -> None:
        nonlocal tokens, comment, blank, depth
        tokens = _without_idle_separators(tokens)
        if tokens or comment:
            closing = 0
            for kind, token in tokens:
                if kind == "mark" and token in ")]}":
                    closing += 1
                else:
                    break
            start = max(0, depth - closing)
            inside = bool(brackets_at_start) and brackets_at_start[-1] != "{"
            after_block = bool(lines) and lines[-1].code.endswith("{")
            keep = blank and not after_block and not (tokens and tokens[0][1] == "}")
            lines.append(_Line(start, _join(tokens, inside), comment, keep, inside))
            blank = False
        tokens, comment = [], ""

    brackets_at_start: list[str] = []
    for match in _TOKEN.finditer(text.removeprefix("\ufeff")):
        kind, token = match.lastgroup or "", match.group()
        if kind == "newline":
            if not tokens and not comment:
                blank = True
            flush()
            depth, brackets_at_start = len(brackets), list(brackets)
        elif kind == "comment":
            comment = token.rstrip()
        elif kind != "space":
            if kind == "mark" and token in "([{":
                brackets.append(token)
            elif kind == "mark" and token in ")]}" and brackets:
                brackets.pop()
            tokens.append((kind, _spread(token) if kind == "quantity" else token))
    flush()
    return lines


def _spread(quantity: str) -> str:
    """With one space between number and unit."""
    number = quantity.rstrip(ascii_letters + "/")
    return f"{number.rstrip()} {quantity[len(number) :]}"


def _without_idle_separators(tokens: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without each `;` that has no statement before it or none behind it on its line."""
    kept: list[tuple[str, str]] = []
    for one in tokens:
        if one[1] == "}" and kept and kept[-1][1] == ";":
            kept.pop()
        if one[1] != ";" or (kept and kept[-1][1] not in (";", "{")):
            kept.append(one)
    return kept[:-1] if kept and kept[-1][1] == ";" else kept


def _join(tokens: list[tuple[str, str]], inside: bool) -> str:
    out = ""
    for i, (_, token) in enumerate(tokens):
        out += " " + token if i and _spaced(tokens, i, inside) else token
    return out


def _spaced(tokens: list[tuple[str, str]], i: int, inside: bool) -> bool:
    """Does a space stand before token i (not the first)?"""
    kind, token = tokens[i]
    kind_before, before = tokens[i - 1]
    if kind == "mark" and token in (",", ";", ")", "]", ".", ".."):
        return False
    if kind_before == "mark" and before in ("(", "[", ".", ".."):
        return False
    if kind == "mark" and token in ("(", "["):
        begins = not inside if i == 1 else tokens[i - 2][1] in (";", "{")  # the first word of a statement calls nothing
        called = kind_before == "word" and before not in KEYWORDS and not (begins and token == "(")
        if called or (kind_before == "mark" and before in (")", "]")):
            return False
    return not _signed(tokens, i - 1)


def _signed(tokens: list[tuple[str, str]], i: int) -> bool:
    """Is token i a sign, rather than an operator between two operands?"""
    kind, token = tokens[i]
    if kind != "mark" or token not in ("-", "+"):
        return False
    if i == 0:
        return True
    kind, token = tokens[i - 1]
    return (kind == "mark" and token not in (")", "]")) or (kind == "word" and token in KEYWORDS)


def _align(lines: list[_Line]) -> None:
    """Puts `=` of neighbouring bindings, and comments behind neighbouring statements, beneath each other."""
    for run in _runs(lines, lambda line: not line.inside and bool(_BINDING.match(line.code))):
        width = max(line.code.index(" = ") for line in run)
        for line in run:
            name, value = line.code.split(" = ", 1)
            line.code = f"{name:<{width}} = {value}"
    for line in lines:
        if line.code and line.comment:
            line.comment = "  " + line.comment
    for run in _runs(lines, lambda line: bool(line.code and line.comment)):
        width = max(INDENT * line.depth + len(line.code) for line in run)
        for line in run:
            line.comment = " " * (width - INDENT * line.depth - len(line.code)) + line.comment


def _runs(lines: list[_Line], belongs: Callable[[_Line], bool]) -> list[list[_Line]]:
    """Neighbouring lines that belong together, of one depth and without an empty line between them."""
    runs: list[list[_Line]] = []
    previous: _Line | None = None
    for line in lines:
        if belongs(line):
            if previous is not None and previous.depth == line.depth and not line.blank_before:
                runs[-1].append(line)
            else:
                runs.append([line])
            previous = line
        else:
            previous = None
    return runs
