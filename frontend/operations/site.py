"""Where an operation is called: its operands with their places, and what it may make there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moec.diagnostics import Span
from moec.frontend.graph import Attribute, Constant, Node, PickType, TensorType, describe
from moec.frontend.mistake import Mistake
from moec.frontend.unit import LARGEST_SIZE, Unit


@dataclass(frozen=True)
class Given:
    """An operand and where it stands."""

    value: Constant | Node
    span: Span


@dataclass(frozen=True)
class Site:
    """A call.  `name` is the operation as written; `own_name(kind)` names the parameters that it makes."""

    name: str
    span: Span
    unit: Unit
    own_name: Callable[[str], str]

    def node(self, op: str, operands: tuple[Node, ...], type: TensorType | PickType, *attributes: Attribute) -> Node:
        return self.unit.graph.node(op, operands, type, self.span, *attributes)

    # What an operand has to be.  Each raises Mistake if it is not.

    def tensor(self, given: Given, elements: tuple[str, ...] = ("f32",)) -> Node:
        """A tensor of one of these elements; numbers become scalars of the first that fits."""
        value = given.value
        if isinstance(value, Constant):
            return self.constant(given, elements)
        if isinstance(value.type, PickType):
            raise Mistake(
                "E0307",
                f"`{self.name}` takes a tensor, not a pick",
                given.span,
                f"this is {value.type}",
                notes=["a pick holds the numbers of the chosen experts, not their values"],
                fix="read values at the pick with `values over pick`, or make a mask with `chosen(pick)`",
            )
        if value.type.element not in elements:
            wanted = " or ".join(elements)
            raise Mistake(
                "E0302", f"`{self.name}` takes {wanted}, not {value.type.element}", given.span, f"this is {value.type}"
            )
        return value

    def constant(self, given: Given, elements: tuple[str, ...] = ("f32",)) -> Node:
        """A number as a scalar tensor."""
        value = given.value.value if isinstance(given.value, Constant) else None
        for element in elements:
            if element == "bool" and isinstance(value, bool):
                return self.node("constant", (), TensorType((), "bool"), value)
            if isinstance(value, bool):
                continue
            if element == "i32" and isinstance(value, int) and -(2**31) <= value <= LARGEST_SIZE:
                return self.node("constant", (), TensorType((), "i32"), value)
            if element == "f32" and isinstance(value, int | float):
                return self.node("constant", (), TensorType((), "f32"), _float32(value, given.span))
        wanted = " or ".join(elements)
        raise Mistake("E0302", f"`{self.name}` takes {wanted} here", given.span, f"this is {describe(given.value)}")

    def vector(self, given: Given) -> Node:
        """An f32 tensor with exactly one axis."""
        node = self.tensor(given)
        if len(shape_of(node)) != 1:
            raise Mistake(
                "E0306",
                f"`{self.name}` takes a vector",
                given.span,
                f"this is {node.type}",
                fix="use `merge(v)` to make one axis of several" if shape_of(node) else None,
            )
        return node

    def with_axis(self, given: Given, elements: tuple[str, ...] = ("f32",)) -> Node:
        """A tensor with at least one axis."""
        node = self.tensor(given, elements)
        if not shape_of(node):
            raise Mistake(
                "E0306",
                f"`{self.name}` needs a tensor with an axis",
                given.span,
                "this is a single number",
            )
        return node

    def pick(self, given: Given) -> Node:
        """A pick."""
        if isinstance(given.value, Node) and isinstance(given.value.type, PickType):
            return given.value
        raise Mistake(
            "E0307",
            f"`{self.name}` needs a pick",
            given.span,
            f"this is {describe(given.value)}",
            notes=["picks come from `top_k`, `top_p`, `choose`, and from `below` and `merge` of a pick"],
        )

    def whole(self, given: Given, what: str, low: int = 1, high: int = LARGEST_SIZE) -> int:
        """A whole number known while checking, between `low` and `high`."""
        number = self._known(given, what)
        if isinstance(number, bool) or not isinstance(number, int):
            raise Mistake(
                "E0503",
                f"{what} of `{self.name}` must be a whole number",
                given.span,
                f"this is {describe(given.value)}",
                fix="divide whole numbers with `//`" if isinstance(number, float) else None,
            )
        if not low <= number <= high:
            between = f"at least {low}" if high == LARGEST_SIZE and number < low else f"between {low} and {high:,}"
            raise Mistake("E0503", f"{what} of `{self.name}` must be {between}", given.span, f"this is {number:,}")
        return number

    def number(self, given: Given, what: str) -> float:
        """A number known while checking."""
        number = self._known(given, what)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise Mistake(
                "E0503", f"{what} of `{self.name}` must be a number", given.span, f"this is {describe(given.value)}"
            )
        return float(number)

    def truth(self, given: Given, what: str) -> bool:
        """true or false, known while checking."""
        value = self._known(given, what)
        if not isinstance(value, bool):
            raise Mistake(
                "E0503",
                f"{what} of `{self.name}` must be true or false",
                given.span,
                f"this is {describe(given.value)}",
            )
        return value

    def _known(self, given: Given, what: str) -> object:
        if isinstance(given.value, Node):
            raise Mistake(
                "E0308",
                f"{what} of `{self.name}` must be known while compiling",
                given.span,
                f"this is {given.value.type}, known only when the layer runs",
            )
        return given.value.value


def _float32(value: int | float | None, span: Span) -> float:
    number = float(value or 0)
    if abs(number) > 3.4028234663852886e38 and number not in (float("inf"), float("-inf")):
        raise Mistake("E0502", "this number is too large for f32", span, f"this is {number:g}", fix="write `inf`")
    return number


def shape_of(node: Node) -> tuple[int, ...]:
    return node.type.shape


def element_of(node: Node) -> str:
    return node.type.element if isinstance(node.type, TensorType) else "i32"
