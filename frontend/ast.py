"""What the parser makes of a file: statements of words, and expressions.  Spans do not take part in comparison."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from moec.diagnostics import Source, Span


@dataclass(frozen=True)
class Expr:
    """An expression; `span` covers it, brackets around it not included."""

    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True)
class Number(Expr):
    """A literal without a sign: an int, or a float if it has a point or an exponent."""

    value: int | float


@dataclass(frozen=True)
class Quantity(Expr):
    """A number and its unit, one of those of frontend/units.py."""

    number: int | float
    unit: str


@dataclass(frozen=True)
class String(Expr):
    value: str


@dataclass(frozen=True)
class Name(Expr):
    text: str


@dataclass(frozen=True)
class Unary(Expr):
    """`op` is `-`, `+` or `not`."""

    op: str
    operand: Expr


@dataclass(frozen=True)
class Binary(Expr):
    """`op` as written; `op_span` is the operator's place."""

    op: str
    left: Expr
    right: Expr
    op_span: Span = field(compare=False, repr=False)


@dataclass(frozen=True)
class Conditional(Expr):
    """`condition ? yes : no`."""

    condition: Expr
    yes: Expr
    no: Expr


@dataclass(frozen=True)
class Over(Expr):
    """`values over pick`."""

    values: Expr
    pick: Expr


@dataclass(frozen=True)
class Range(Expr):
    """`first..last`, both included."""

    first: Expr
    last: Expr


@dataclass(frozen=True)
class Argument:
    """An argument of a call; `name` is None for a positional one."""

    name: Name | None
    value: Expr


@dataclass(frozen=True)
class Call(Expr):
    function: Name
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Index(Expr):
    base: Expr
    indices: tuple[Expr, ...]


@dataclass(frozen=True)
class Attribute(Expr):
    base: Expr
    name: Name


@dataclass(frozen=True)
class Punctuation:
    """A `,`, `=`, `:` or `when` between the words of a statement."""

    span: Span = field(compare=False, repr=False)
    text: str


Word = Expr | Punctuation


@dataclass(frozen=True)
class Statement:
    """`head words... { block }`; `block` is None without braces."""

    span: Span = field(compare=False, repr=False)
    head: Name
    words: tuple[Word, ...]
    block: tuple[Statement, ...] | None


@dataclass(frozen=True)
class File:
    source: Source = field(compare=False)
    statements: tuple[Statement, ...]


def children(expr: Expr) -> tuple[Expr, ...]:
    """The expressions directly inside an expression (names of calls, attributes and keywords are not among them)."""
    match expr:
        case Unary():
            return (expr.operand,)
        case Binary():
            return (expr.left, expr.right)
        case Conditional():
            return (expr.condition, expr.yes, expr.no)
        case Range():
            return (expr.first, expr.last)
        case Over():
            return (expr.values, expr.pick)
        case Call():
            return tuple(argument.value for argument in expr.arguments)
        case Index():
            return (expr.base, *expr.indices)
        case Attribute():
            return (expr.base,)
    return ()


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and everything inside it, in source order; needs no recursion."""
    stack = [expr]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(children(node)))
