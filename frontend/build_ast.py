"""Lark's tree to AST, without recursion."""

from __future__ import annotations

from string import ascii_letters
from typing import Any

from lark import Token, v_args
from lark.tree import Meta
from lark.visitors import Transformer_NonRecursive

from moec.diagnostics import Source, Span
from moec.frontend import ast

LONGEST_NUMBER = 40
"""Digits of a number literal that are read; a longer one is infinite as a float, and out of range as an int."""


@v_args(meta=True)
class BuildAst(Transformer_NonRecursive[Token, ast.File]):
    """One method a rule of grammar.lark."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source

    def _span(self, meta: Meta) -> Span:
        return Span(self._source, meta.start_pos, meta.end_pos)

    def _token(self, token: Token) -> Span:
        start = token.start_pos or 0
        return Span(self._source, start, start + len(token))

    def _named(self, token: Token) -> ast.Name:
        return ast.Name(self._token(token), str(token))

    def start(self, meta: Meta, items: list[Any]) -> ast.File:
        return ast.File(self._source, tuple(items))

    def statement(self, meta: Meta, items: list[Any]) -> ast.Statement:
        head, *rest = items
        block = rest.pop() if rest and isinstance(rest[-1], tuple) else None
        return ast.Statement(self._span(meta), self._named(head), tuple(rest), block)

    def block(self, meta: Meta, items: list[Any]) -> tuple[ast.Statement, ...]:
        return tuple(items)

    def punctuation(self, meta: Meta, items: list[Any]) -> ast.Punctuation:
        return ast.Punctuation(self._token(items[0]), str(items[0]))

    def conditional(self, meta: Meta, items: list[Any]) -> ast.Expr:
        return ast.Conditional(self._span(meta), *items)

    def over(self, meta: Meta, items: list[Any]) -> ast.Expr:
        return ast.Over(self._span(meta), *items)

    def binary(self, meta: Meta, items: list[Any]) -> ast.Expr:
        left, op, right = items
        return ast.Binary(self._span(meta), str(op), left, right, self._token(op))

    def unary(self, meta: Meta, items: list[Any]) -> ast.Expr:
        op, operand = items
        return ast.Unary(self._span(meta), str(op), operand)

    def index(self, meta: Meta, items: list[Any]) -> ast.Expr:
        base, *indices = items
        return ast.Index(self._span(meta), base, tuple(indices))

    def attribute(self, meta: Meta, items: list[Any]) -> ast.Expr:
        base, name = items
        return ast.Attribute(self._span(meta), base, self._named(name))

    def name(self, meta: Meta, items: list[Any]) -> ast.Expr:
        return self._named(items[0])

    def call(self, meta: Meta, items: list[Any]) -> ast.Expr:
        function, *rest = items
        arguments = tuple(one if isinstance(one, ast.Argument) else ast.Argument(None, one) for one in rest)
        return ast.Call(self._span(meta), self._named(function), arguments)

    def range(self, meta: Meta, items: list[Any]) -> ast.Expr:
        return ast.Range(self._span(meta), *items)

    def keyword(self, meta: Meta, items: list[Any]) -> ast.Argument:
        name, value = items
        return ast.Argument(self._named(name), value)

    def number(self, meta: Meta, items: list[Any]) -> ast.Expr:
        return ast.Number(self._span(meta), _number(str(items[0])))

    def quantity(self, meta: Meta, items: list[Any]) -> ast.Expr:
        text = str(items[0])
        number = text.rstrip(ascii_letters + "/%")
        return ast.Quantity(self._span(meta), _number(number.rstrip()), text[len(number) :])

    def string(self, meta: Meta, items: list[Any]) -> ast.Expr:
        return ast.String(self._span(meta), str(items[0])[1:-1])

    def parenthesised(self, meta: Meta, items: list[Any]) -> Any:
        return items[0]


def _number(text: str) -> int | float:
    return int(text) if text.isdigit() and len(text) <= LONGEST_NUMBER else float(text)
