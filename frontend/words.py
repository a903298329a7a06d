"""Reads the words of one statement from left to right."""

from __future__ import annotations

from typing import NoReturn

from moec.diagnostics import Fix, Span, did_you_mean
from moec.frontend import ast


class Malformed(Exception):
    """The statement does not have its form.

    extra  the word that stands behind its end, where that is a name
    fix    what to write instead, where more is known than the form that the statement needs
    """

    def __init__(self, span: Span, why: str, extra: str = "", fix: Fix | None = None) -> None:
        super().__init__(why)
        self.span = span
        self.why = why
        self.extra = extra
        self.fix = fix


class Words:
    """A cursor over the words of a statement; raises Malformed where they do not fit."""

    def __init__(self, statement: ast.Statement) -> None:
        self._statement = statement
        self._words = statement.words
        self._at = 0

    @property
    def _previous_end(self) -> Span:
        span = self._words[self._at - 1].span if self._at else self._statement.head.span
        return Span(span.source, span.end - 1, span.end)

    @property
    def here(self) -> Span:
        """The next word; behind the last one its end."""
        return self._words[self._at].span if self._at < len(self._words) else self._previous_end

    def fail(self, why: str, fix: Fix | None = None) -> NoReturn:
        raise Malformed(self.here, why, fix=fix)

    def peek(self, mark: str) -> bool:
        """Is the next word this punctuation?"""
        if self._at >= len(self._words):
            return False
        word = self._words[self._at]
        return isinstance(word, ast.Punctuation) and word.text == mark

    def skip(self, mark: str) -> bool:
        """Take this punctuation if it comes next."""
        found = self.peek(mark)
        self._at += found
        return found

    def punctuation(self, mark: str) -> None:
        if not self.skip(mark):
            self.fail(f"expected `{mark}` here")

    def expression(self, what: str = "an expression") -> ast.Expr:
        word = self._words[self._at] if self._at < len(self._words) else None
        if not isinstance(word, ast.Expr):
            self.fail(f"expected {what} here")
        self._at += 1
        return word

    def name(self, what: str = "a name") -> ast.Name:
        word = self._words[self._at] if self._at < len(self._words) else None
        if not isinstance(word, ast.Name):
            self.fail(f"expected {what} here")
        self._at += 1
        return word

    def keyword(self, *texts: str) -> str:
        """Take one of these words."""
        word = self._words[self._at] if self._at < len(self._words) else None
        if not isinstance(word, ast.Name) or word.text not in texts:
            fix = did_you_mean(word.text, texts, word.span) if isinstance(word, ast.Name) else None
            self.fail(f"expected {' or '.join(f'`{text}`' for text in texts)} here", fix)
        self._at += 1
        return word.text

    def next_expression(self) -> ast.Expr | None:
        """The next word if it is an expression, which is not taken."""
        word = self._words[self._at] if self._at < len(self._words) else None
        return word if isinstance(word, ast.Expr) else None

    def next_name(self) -> str:
        """The text of the next word if it is a name; empty elsewhere."""
        word = self.next_expression()
        return word.text if isinstance(word, ast.Name) else ""

    def optional(self, mark: str) -> ast.Expr | None:
        """The expression behind this punctuation, if it comes next."""
        return self.expression() if self.skip(mark) else None

    def end(self, block: bool = False) -> None:
        """Nothing may follow, except a block where `block` is true."""
        if self._at < len(self._words):
            word = self._words[self._at]
            hint = "" if isinstance(word, ast.Punctuation) else "; is an operator or a `,` missing?"
            raise Malformed(word.span, f"nothing may follow here{hint}", self.next_name())
        if self._statement.block is not None and not block:
            raise Malformed(self._previous_end, "no block may follow this statement")
        if self._statement.block is None and block:
            raise Malformed(self._previous_end, "a block `{ ... }` must follow")
