"""Operations on each element: arithmetic, comparisons, functions."""

from __future__ import annotations

import math
from collections.abc import Callable

from moec.diagnostics import Label
from moec.frontend.graph import Constant, DType, Node, TensorType, Value, describe
from moec.frontend.mistake import Mistake
from moec.frontend.operations.broadcast import joint
from moec.frontend.operations.site import Given, Site

ARITHMETIC = {"+": "add", "-": "sub", "*": "mul", "/": "div"}
COMPARISONS = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
LOGIC = {"and": "and", "or": "or"}

# Functions of one number; those that are exact on constants have their Python meaning beside them.
FUNCTIONS: dict[str, Callable[[float], float] | None] = {
    "abs": abs,
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
    "rsqrt": lambda a: 1.0 / math.sqrt(a),
    "square": lambda a: a * a,
    "tanh": math.tanh,
    "relu": lambda a: max(a, 0),
    "sigmoid": None,
    "silu": None,
    "gelu": None,
    "gelu_tanh": None,
    "softplus": None,
}


def binary(site: Site, op: str, a: Given, b: Given) -> Node:
    """An arithmetic, comparing or logical operator of which at least one side is a tensor."""
    if op in ARITHMETIC:
        elements = ("f32",) if op == "/" else ("f32", "i32")
        left, right = _alike(site, [a, b], elements)
        return site.node(ARITHMETIC[op], (left, right), joint(site, [a, b], [left, right], _element(left)))
    if op in COMPARISONS:
        left, right = _alike(site, [a, b], ("f32", "i32"))
        return site.node(COMPARISONS[op], (left, right), joint(site, [a, b], [left, right], "bool"))
    if op in LOGIC:
        left, right = site.tensor(a, ("bool",)), site.tensor(b, ("bool",))
        return site.node(LOGIC[op], (left, right), joint(site, [a, b], [left, right], "bool"))
    raise Mistake(
        "E0302",
        f"`{op}` works on whole numbers that are known while compiling",
        site.span,
        also=[Label(g.span, f"this is {describe(g.value)}") for g in (a, b) if isinstance(g.value, Node)],
        fix="use `/` on tensors" if op == "//" else None,
    )


def negative(site: Site, a: Given) -> Node:
    node = site.tensor(a, ("f32", "i32"))
    return site.node("neg", (node,), _like(node))


def inverted(site: Site, a: Given) -> Node:
    """`not` of a mask."""
    node = site.tensor(a, ("bool",))
    return site.node("not", (node,), _like(node))


def where(site: Site, mask: Given, a: Given, b: Given) -> Node:
    """a where the mask holds, b elsewhere."""
    chosen = site.tensor(mask, ("bool",))
    left, right = _alike(site, [a, b], ("f32", "i32", "bool"))
    type_ = joint(site, [mask, a, b], [chosen, left, right], _element(left))
    return site.node("where", (chosen, left, right), type_)


def function(name: str) -> Callable[..., Value]:
    """The build function of an elementwise function of one operand."""

    def build(site: Site, a: Given) -> Value:
        if isinstance(a.value, Constant):
            return _on_constant(site, name, a)
        node = site.tensor(a)
        return site.node(name, (node,), _like(node))

    return build


def _on_constant(site: Site, name: str, a: Given) -> Constant:
    compute = FUNCTIONS[name]
    if compute is None:
        raise Mistake("E0302", f"`{name}` takes a tensor", a.span, f"this is {describe(a.value)}")
    number = site.number(a, "the operand")
    exact = isinstance(a.value, Constant) and isinstance(a.value.value, int) and name in ("abs", "square", "relu")
    try:
        result = compute(number)
    except (ValueError, OverflowError, ZeroDivisionError):
        raise Mistake("E0502", f"`{name}` has no value at {number:g}", a.span) from None
    return Constant(int(result) if exact else result)


def extreme(name: str) -> Callable[..., Value]:
    """The build function of `min` and `max`, of two or more operands."""
    pick = min if name == "min" else max

    def build(site: Site, first: Given, *rest: Given) -> Value:
        given = [first, *rest]
        values = [g.value for g in given]
        if all(isinstance(value, Constant) for value in values):
            for g in given:
                site.number(g, "an operand")
            return Constant(pick(value.value for value in values if isinstance(value, Constant)))
        nodes = _alike(site, given, ("f32", "i32"))
        made, sofar = nodes[0], [given[0]]
        for g, node in zip(given[1:], nodes[1:], strict=True):
            sofar.append(g)
            made = site.node(name, (made, node), joint(site, [sofar[-2], g], [made, node], _element(node)))
        return made

    return build


def clamp(site: Site, a: Given, low: Given, high: Given) -> Node:
    """a, but not below low and not above high."""
    nodes = _alike(site, [a, low, high], ("f32", "i32"))
    below = site.node("max", (nodes[0], nodes[1]), joint(site, [a, low], nodes[:2], _element(nodes[0])))
    return site.node("min", (below, nodes[2]), joint(site, [a, high], [below, nodes[2]], _element(nodes[0])))


def power(site: Site, a: Given, b: Given) -> Value:
    """a to the power b."""
    if isinstance(a.value, Constant) and isinstance(b.value, Constant):
        base, exponent = site.number(a, "the base"), site.number(b, "the exponent")
        try:
            result = math.pow(base, exponent)
        except (ValueError, OverflowError):
            raise Mistake("E0502", f"`pow` has no value at {base:g}, {exponent:g}", site.span) from None
        whole = all(isinstance(g.value, Constant) and isinstance(g.value.value, int) for g in (a, b))
        return Constant(int(result) if whole and exponent >= 0 and result < 2**53 else result)
    left, right = site.tensor(a), site.tensor(b)
    return site.node("pow", (left, right), joint(site, [a, b], [left, right], "f32"))


def _alike(site: Site, given: list[Given], elements: tuple[str, ...]) -> list[Node]:
    """The operands as tensors of one element; numbers take that of the tensors."""
    tensors = [(g, site.tensor(g, elements)) for g in given if isinstance(g.value, Node)]
    if not tensors:
        for g in given:
            if isinstance(g.value, Constant) and isinstance(g.value.value, DType):
                site.constant(g, elements)
        return [site.constant(g, elements) for g in given]
    wanted = _element(tensors[0][1])
    for g, node in tensors[1:]:
        if _element(node) != wanted:
            raise Mistake(
                "E0302",
                f"`{site.name}` cannot join {wanted} and {_element(node)}",
                g.span,
                f"this is {node.type}",
                also=[Label(tensors[0][0].span, f"this is {tensors[0][1].type}")],
            )
    return [site.tensor(g, (wanted,)) for g in given]


def _element(node: Node) -> str:
    return node.type.element if isinstance(node.type, TensorType) else "i32"


def _like(node: Node) -> TensorType:
    assert isinstance(node.type, TensorType)
    return node.type
