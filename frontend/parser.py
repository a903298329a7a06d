"""Text to AST.  Whatever the text is, the outcome is an AST or a DiagnosticError; size and depth are bounded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

from lark import Lark, Token, UnexpectedCharacters, UnexpectedToken

from moec.diagnostics import Collector, Source
from moec.errors import DiagnosticError
from moec.frontend import ast, syntax_errors
from moec.frontend.build_ast import BuildAst
from moec.frontend.tokens import BracketError, Separators, TooDeep

LARGEST = 1 << 20
"""Characters in a file."""
DEEPEST = 64
"""Expressions within expressions."""
MOST_ERRORS = 8
"""Syntax errors reported in one run; each costs one more parse."""
RETRY_UP_TO = 1 << 16
"""Beyond this many characters only the first syntax error is reported."""


@lru_cache(maxsize=1)
def _lark() -> Lark:
    grammar = (files("moec.frontend") / "grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer="basic", postlex=Separators(), propagate_positions=True)


def _end(tokens: Sequence[Token]) -> Token:
    """The token behind all others."""
    return Token.new_borrow_pos("$END", "", tokens[-1]) if tokens else Token("$END", "", 0, 1, 1)


def parse(source: Source) -> ast.File:
    """The AST of a source.  Raises DiagnosticError with every syntax error found (up to MOST_ERRORS)."""
    found = Collector()
    if len(source.text) > LARGEST:
        syntax_errors.too_large(found, source, LARGEST)
        raise DiagnosticError(found.diagnostics)
    text = source.text
    for _ in range(MOST_ERRORS if len(text) <= RETRY_UP_TO else 1):
        tokens: list[Token] = []
        try:
            tokens.extend(_lark().lex(text))
            parser = _lark().parse_interactive("")
            for token in tokens:
                parser.feed_token(token)
            tree = parser.feed_token(_end(tokens))
        except (BracketError, TooDeep) as error:
            if not found.has_errors:  # behind an earlier error, brackets may be wrong only because of it
                syntax_errors.bad_bracket(found, source, error)
            break
        except UnexpectedCharacters as error:
            start, end = syntax_errors.bad_character(found, source, error)
        except UnexpectedToken as error:
            start, end = _statement_around(tokens, len(text), syntax_errors.bad_token(found, source, error))
        else:
            if found.has_errors:
                break
            file: ast.File = BuildAst(source).transform(tree)
            _check_depth(found, file)
            found.raise_if_errors()
            return file
        blank = "".join(c if c in "\r\n" else " " for c in text[start:end])
        if blank == text[start:end]:
            break
        text = text[:start] + blank + text[end:]  # and look for the next error
    raise DiagnosticError(found.diagnostics)


def _statement_around(tokens: list[Token], end: int, place: int) -> tuple[int, int]:
    """The part of the text between the separators or braces around `place`."""
    start = 0
    for token in tokens:
        if token.type in ("_SEP", "LBRACE", "RBRACE"):
            at = token.start_pos or 0
            if at >= place:
                return start, at
            start = at + len(token)
    return start, end


def _check_depth(found: Collector, file: ast.File) -> None:
    pending = list(file.statements)
    while pending:
        statement = pending.pop()
        pending.extend(statement.block or ())
        for word in statement.words:
            if isinstance(word, ast.Expr) and _too_deep(word):
                syntax_errors.expression_too_deep(found, word.span, DEEPEST)


def _too_deep(expr: ast.Expr) -> bool:
    level: list[ast.Expr] = [expr]
    for _ in range(DEEPEST):
        level = [child for node in level for child in ast.children(node)]
        if not level:
            return False
    return True
