"""Random experts: calls of the standard library's, and definitions as people write them."""

from __future__ import annotations

from dataclasses import dataclass

from tests.fuzz.bodies import random_body
from tests.fuzz.choices import Choices


@dataclass(frozen=True)
class Expert:
    """A definition (empty for the standard library's), the call, and the sizes that its linears read beside d.

    trained  whether it can be trained, by what `moec explain E0620` says
    certain  whether it keeps to what `moec explain E0610` says
    """

    definition: str
    call: str
    inner: tuple[int, ...]
    trained: bool = True
    certain: bool = True


STANDARD = (
    "swiglu(d, {ff})",
    "mlp_relu(d, {ff})",
    "mlp_relu(d, {ff}, bias = true)",
    "mlp_gelu(d, {ff})",
    "mlp_gelu(d, {ff}, bias = true)",
    "geglu(d, {ff})",
    "clamped_swiglu(d, {ff}, limit = 0.5)",
    "gated_swiglu(d, {ff})",
    "sigmoid(linear(x, 1)) * swiglu(d, {ff})",
    "0.5 * mlp_relu(d, {ff}, bias = true)",
)

FORMULAS = (
    "relu({v})",
    "square(relu({v}))",
    "silu({v})",
    "gelu({v})",
    "gelu_tanh({v})",
    "tanh({v})",
    "clamp({v}, -0.5, 0.7)",
    "max({v}, 0.1 * {v})",
    "where({v} > 0, {v}, exp({v}) - 1)",
    "softplus({v})",
    "abs({v}) - min({v}, 0.3)",
    "{v} * rsqrt(1 + square({v}))",
    "log(1 + square({v}))",
    "sqrt(abs({v}) + 0.5) * {v}",
    "pow(abs({v}) + 0.5, 1.5)",
    "{v} / (1 + abs({v}))",
    "({v} > 0.5 or {v} < -0.5 ? {v} : 0 * {v})",
    "{v}",
)

# `A` and `B` stand for formulas, `m` for another hidden size.
BODIES = (
    ("y = linear(A(linear(x, ff)), d)", True),
    ("h = linear(x, ff, bias = true)\n  y = linear(A(h), d, bias = true)", True),
    ("g = linear(x, ff)\n  u = linear(x, ff)\n  y = linear(A(g) * u, d)", True),
    ("g = linear(x, ff)\n  u = linear(x, ff, bias = true)\n  y = linear(A(g) * B(u), d, bias = true)", True),
    ("g = linear(x, ff)\n  u = linear(x, ff)\n  v = linear(x, ff)\n  y = linear(A(g) * u + v, d)", True),
    ("h = linear(x, ff)\n  z = linear(A(h), m)\n  y = linear(B(z), d)", True),
    ("u = A(linear(x, ff))\n  z = linear(u, m, bias = true)\n  w = linear(u, m)\n  y = linear(B(z) * w, d)", True),
    ("y = linear(x, d, bias = true)", True),
    ("y = sigmoid(linear(x, 1)) * linear(x, d)", True),
    ("h = linear(x, ff)\n  g = linear(x, 1, bias = true)\n  y = sigmoid(g) * linear(A(h), d, bias = true) / 2", True),
    ("s = param(ff)\n  h = linear(x, ff)\n  y = linear(s * A(h), d)", True),
    ("s = param(d)\n  t = param(d)\n  h = linear(x, ff)\n  y = s * linear(A(h), d) + t", False),
    ("h = linear(x, ff)\n  y = x + linear(A(h), d)", False),
    ("h = linear(x, ff)\n  y = x * linear(A(h), d)", False),
    ("h = linear(x, ff)\n  u = linear(x, m)\n  y = linear(A(h), d) + linear(B(u), d)", False),
    ("h = linear(x, ff)\n  o = linear(h, d)\n  y = A(o)", False),
    ("y = mlp_relu(d, ff) - 0.5 * swiglu(d, m)", False),
)


def expert(choices: Choices, name: str, ff: int, other: int) -> Expert:
    """An expert with hidden rows of `ff` and, where it has some more, `other`; its definition has this name."""
    if choices.chance(55):
        return Expert("", choices.one(STANDARD).format(ff=ff), (ff,))
    if choices.chance(30):
        lines, read = random_body(choices)
        sizes = {"ff": ff, "m": other, "1": 1}
        inner = tuple(sizes[width] for width in sorted(read - {"d"}))
        return Expert(f"expert {name}(d, ff, m) {{\n{lines}\n}}\n", f"{name}(d, {ff}, {other})", inner, False, False)
    body, trained = choices.one(BODIES)
    for letter in "AB":
        while f"{letter}(" in body:
            head, tail = body.split(f"{letter}(", 1)
            inside, rest = _to_bracket(tail)
            body = head + "(" + choices.one(FORMULAS).format(v=inside) + ")" + rest
    inner = tuple(size for size, word in ((ff, "ff"), (other, "m")) if word in body)
    m = ", m" if " m" in body else ""
    call = f"{name}(d, {ff}, {other})" if m else f"{name}(d, {ff})"
    return Expert(f"expert {name}(d, ff{m}) {{\n  {body}\n}}\n", call, inner, trained)


def _to_bracket(text: str) -> tuple[str, str]:
    """What stands before the bracket that closes, and behind it."""
    depth = 1
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return text[:at], text[at + 1 :]
    raise ValueError(text)
