"""Random experts of which no line is known before: linears of x, and of what was made from others."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.fuzz.choices import Choices

UNARY = (
    "relu({v})",
    "silu({v})",
    "gelu({v})",
    "tanh({v})",
    "sigmoid({v})",
    "clamp({v}, -0.5, 0.7)",
    "{v} / (1 + abs({v}))",
    "where({v} > 0.1, {v}, 0.3 * {v})",
    "0.5 - {v}",
)
BINARY = ("{a} * {b}", "{a} + {b}", "{a} - {b}", "max({a}, {b})", "where({a} > {b}, {a}, -{b})", "{a} / (1 + abs({b}))")
DTYPES = ("", "", "", "", " : f32", " : bf16", " : f16")


@dataclass
class Body:
    """Lines of an expert, and what they have made.

    values  names by width: "ff", "m", "d" or "1"
    read    widths that linears read
    """

    choices: Choices
    lines: list[str] = field(default_factory=list)
    values: dict[str, list[str]] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)

    def bind(self, expression: str, width: str, stored: str = "") -> str:
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {expression}{stored}")
        self.values.setdefault(width, []).append(name)
        return name

    def any(self) -> tuple[str, str]:
        """A value and its width; mostly a late one."""
        width = self.choices.one(list(self.values))
        names = self.values[width]
        return (names[-1] if self.choices.chance(60) else self.choices.one(names)), width

    def linear(self, width: str, source: str = "x") -> str:
        bias = ", bias = true" if self.choices.chance(30) else ""
        return self.bind(f"linear({source}, {width}{bias})", width, self.choices.one(DTYPES))

    def statement(self) -> None:
        choices = self.choices
        kind = choices.whole(0, 9) if self.values else 0
        if kind < 3:
            self.linear(choices.one(("ff", "ff", "1", "m", "d")))
        elif kind < 5:
            name, width = self.any()
            self.bind(choices.one(UNARY).format(v=name), width)
        elif kind < 7:
            a, width = self.any()
            others = [*self.values[width], *self.values.get("1", [])]
            self.bind(choices.one(BINARY).format(a=a, b=choices.one(others)), width)
        elif kind == 7:
            a, width = self.any()
            size = choices.one((width, "1"))
            owned = self.bind(f"param({size})", "owned", choices.one(DTYPES))
            self.values.pop("owned")
            self.bind(choices.one(BINARY).format(a=a, b=owned), width)
        elif kind == 8:
            name, width = self.any()
            self.read.add(width)
            self.linear(choices.one(("ff", "m", "1", "d")), name)
        elif "d" in self.values:
            name = choices.one(self.values["d"])
            self.bind(choices.one(("{v} * x", "{v} + x", "x - {v}")).format(v=name), "d")


def random_body(choices: Choices) -> tuple[str, set[str]]:
    """An expert's lines, and the widths that its linears read beside that of x; many of them the compiler refuses."""
    body = Body(choices)
    for _ in range(choices.whole(1, 6)):
        body.statement()
    if "d" not in body.values or choices.chance(60):
        name, width = body.any()
        body.read.add(width)
        body.linear("d", name)
    if choices.chance(30):
        body.statement()
    y = body.values["d"][-1]
    return "\n".join(f"  {line}" for line in (*body.lines, f"y = {y}")), body.read
