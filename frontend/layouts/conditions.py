"""Reads conditions on measures: `imbalance > 1.3 and not (tokens < 64)`."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from moec.artifact.policy import DEEPEST, MEASURES, MOST_PARTS, Combination, Comparison, Condition
from moec.diagnostics import Span, did_you_mean
from moec.frontend import ast
from moec.frontend.evaluate import Evaluator
from moec.frontend.graph import Constant, Unknown, describe
from moec.frontend.mistake import Mistake
from moec.frontend.units import BYTES, kind_of

LARGEST = 1e18

_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


class UnknownNumber(Exception):
    """A number has an error that is reported already."""


@dataclass(frozen=True)
class Part:
    """A condition and where it is written; `of` are the parts that an `and` or `or` joins."""

    span: Span
    condition: Condition
    of: tuple[Part, ...] = ()

    @property
    def joins(self) -> str:
        """`and` or `or`, with which the parts are joined; empty for a comparison."""
        return self.condition.op if isinstance(self.condition, Combination) else ""


def read_condition(expr: ast.Expr, constants: Evaluator) -> Part:
    """The condition, without `not`.  Raises Mistake for what is none, UnknownNumber behind an error in a number."""
    if sum(1 for _ in ast.walk(expr)) > 4 * MOST_PARTS:
        raise Mistake("E0453", "the condition has too many parts", expr.span, f"more than {MOST_PARTS} are too many")
    return _Reader(constants).read(expr, False, 0)


def number_of(expr: ast.Expr, constants: Evaluator, code: str, what: str) -> int | float:
    """A number that is known while compiling.  Raises Mistake (`code`) or UnknownNumber."""
    value = constants.value(expr)
    if isinstance(value, Unknown):
        raise UnknownNumber
    number = value.value if isinstance(value, Constant) else None
    if isinstance(number, bool) or not isinstance(number, int | float) or not isfinite(number):
        raise Mistake(code, f"{what} must be a number", expr.span, f"this is {describe(value)}")
    return number


@dataclass(frozen=True)
class _Reader:
    constants: Evaluator

    def read(self, expr: ast.Expr, negate: bool, depth: int) -> Part:
        if depth > DEEPEST:
            raise Mistake("E0453", "the condition nests too deep", expr.span, fix="write it with fewer parentheses")
        match expr:
            case ast.Unary(op="not"):
                inner = self.read(expr.operand, not negate, depth + 1)
                return Part(expr.span, inner.condition, inner.of)
            case ast.Binary(op="and" | "or"):
                op = expr.op if not negate else {"and": "or", "or": "and"}[expr.op]
                parts: list[Part] = []
                for side in (expr.left, expr.right):
                    read = self.read(side, negate, depth + 1)
                    same = isinstance(read.condition, Combination) and read.condition.op == op
                    parts += read.of if same else (read,)
                return Part(expr.span, Combination(op, tuple(one.condition for one in parts)), tuple(parts))
            case ast.Binary() if expr.op in _OPPOSITE:
                return Part(expr.span, self._comparison(expr, negate))
            case ast.Name() if expr.text in MEASURES:
                raise Mistake(
                    "E0453",
                    f"`{expr.text}` is a number, not a condition",
                    expr.span,
                    MEASURES[expr.text],
                    fix=f"compare it: `{expr.text} > ...`",
                )
        near = did_you_mean(expr.text, MEASURES, expr.span) if isinstance(expr, ast.Name) else None
        raise Mistake(
            "E0453",
            "a condition compares measures with numbers",
            expr.span,
            "this is no comparison",
            notes=[_known()],
            fix=near or "write a comparison such as `imbalance > 1.5`",
        )

    def _comparison(self, expr: ast.Binary, negate: bool) -> Comparison:
        left, right, op = expr.left, expr.right, expr.op
        if not _measure(left) and _measure(right):
            left, right, op = right, left, _TURNED[op]
        if not isinstance(left, ast.Name) or not _measure(left):
            raise self._no_measure(expr)
        other = next((one for one in ast.walk(right) if _measure(one)), None)
        if other is not None:
            raise Mistake(
                "E0453",
                "a measure is compared with a number",
                other.span,
                "this is another measure",
                fix="compare each of them with a number, and join the comparisons with `and` or `or`",
            )
        value = self._value(right, left.text)
        return Comparison(left.text, _OPPOSITE[op] if negate else op, float(value))

    def _value(self, expr: ast.Expr, measure: str) -> int | float:
        if isinstance(expr, ast.Quantity):
            value = expr.number * self._bytes(expr, measure)
        else:
            value = number_of(expr, self.constants, "E0453", f"what `{measure}` is compared with")
        if abs(value) > LARGEST:
            raise Mistake("E0453", "this number is too large", expr.span, f"more than {LARGEST:g}")
        return value

    def _bytes(self, expr: ast.Quantity, measure: str) -> int:
        if measure == "memory" and expr.unit in BYTES:
            return BYTES[expr.unit]
        if measure == "memory":
            fix = f"the units of bytes are {', '.join(f'`{unit}`' for unit in BYTES)}"
            raise Mistake("E0453", "`memory` is a number of bytes", expr.span, f"this is {kind_of(expr.unit)}", fix=fix)
        raise Mistake(
            "E0453",
            f"`{measure}` has no unit",
            expr.span,
            f"this is in {expr.unit}",
            notes=[f"`{measure}` is the {MEASURES[measure].removeprefix('number of ')}"],
            fix="leave the unit out",
        )

    def _no_measure(self, expr: ast.Binary) -> Mistake:
        """What to say of a comparison without a measure on either side."""
        for node in ast.walk(expr):
            if _measure(node):
                return Mistake(
                    "E0453",
                    "a measure stands alone on its side of a comparison",
                    expr.span,
                    notes=[_known()],
                    fix="move the arithmetic to the number",
                )
        for node in ast.walk(expr):
            name = node.function if isinstance(node, ast.Call) else node
            if isinstance(name, ast.Name) and not self.constants.knows(name.text):
                return Mistake(
                    "E0453",
                    f"there is no measure `{name.text}`",
                    name.span,
                    "unknown measure",
                    notes=[_known()],
                    fix=did_you_mean(name.text, MEASURES, name.span),
                )
        return Mistake("E0453", "this comparison has no measure", expr.span, "never changes", notes=[_known()])


def _measure(expr: ast.Expr) -> bool:
    return isinstance(expr, ast.Name) and expr.text in MEASURES


def _known() -> str:
    return f"the measures are {', '.join(f'`{name}`' for name in MEASURES)}"
