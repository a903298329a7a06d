"""Random routers of which no statement is known before: values of a token, one made from others."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.fuzz.choices import Choices

TASKS = 3
VOCABULARY = 11
Shape = tuple[int, ...]

UNARY = (
    "tanh({v})",
    "sigmoid({v})",
    "silu({v})",
    "gelu({v})",
    "gelu_tanh({v})",
    "relu({v})",
    "softplus({v})",
    "-abs({v})",
    "log(1 + square({v}))",
    "sqrt(abs({v}) + 0.5)",
    "rsqrt(1 + square({v}))",
    "exp(min({v}, 1))",
    "{v} / (1 + abs({v}))",
    "pow(abs({v}) + 0.5, 1.5)",
    "clamp({v}, -0.5, 0.7)",
    "where({v} > 0, {v}, 0.1 * {v})",
    "({v} >= 0.5 or not ({v} > -0.5) ? {v} : 0.25 - {v})",
    "2 * {v} - 1",
)
BINARY = (
    "{a} + {b}",
    "{a} - {b}",
    "{a} * {b}",
    "{a} / (1 + abs({b}))",
    "min({a}, {b}, 0.5)",
    "max({a}, {b})",
    "where({a} > {b}, {a}, 0.5 * {b})",
    "where({a} > 0 and {b} <= 0.25, {b}, {a})",
)
REDUCTIONS = ("sum", "mean", "max_of", "min_of", "norm")
SMALL = "({v}) / (1 + abs({v}))"
"""Keeps order, and what may be large small: sigmoids of large numbers would be 1 in f32, and tie."""


@dataclass
class Rows:
    """Statements of a router, and what they have made.

    values  names of f32 values by shape
    """

    choices: Choices
    count: int
    lines: list[str] = field(default_factory=list)
    values: dict[Shape, list[str]] = field(default_factory=dict)
    inputs: set[str] = field(default_factory=set)
    made: int = 0

    def bind(self, expression: str, shape: Shape | None) -> str:
        """A new name; with a shape it is a value that others are made from."""
        name = f"v{self.made}"
        self.made += 1
        self.lines.append(f"{name} = {expression}")
        if shape is not None:
            self.values.setdefault(shape, []).append(name)
        return name

    def small(self, expression: str, shape: Shape) -> str:
        name = self.bind(expression, None)
        return self.bind(SMALL.format(v=name), shape)

    def any(self, rank: int | None = None) -> tuple[str, Shape]:
        """Some value; of one axis, or of none where there is none of the rank."""
        shapes = [shape for shape in self.values if rank is None or len(shape) == rank]
        shape = self.choices.one(shapes)
        return self.choices.one(self.values[shape]), shape

    def vector(self) -> tuple[str, int]:
        name, shape = self.any(1)
        return name, shape[0]

    def wide(self) -> str:
        """A value for each expert."""
        known = self.values.get((self.count,), [])
        if known and self.choices.chance(80):
            return known[-1] if self.choices.chance(60) else self.choices.one(known)
        return self.bind(f"linear({self.vector()[0]}, count)", (self.count,))

    def statement(self) -> None:
        choices = self.choices
        often = (self._unary, self._unary, self._binary, self._binary)
        seldom = (self._reduced, self._linear, self._softmax, self._grouped, self._joined, self._part)
        kinds = (*often, *seldom, self._picked, self._parameter, self._input, self._token)
        choices.one(kinds)()

    def _unary(self) -> None:
        name, shape = self.any()
        self.bind(self.choices.one(UNARY).format(v=name), shape)

    def _binary(self) -> None:
        a, shape = self.any()
        others = [
            b for one, names in self.values.items() if one in (shape, (), shape[-1:], (*shape[:-1], 1)) for b in names
        ]
        self.small(self.choices.one(BINARY).format(a=a, b=self.choices.one(others)), shape)

    def _reduced(self) -> None:
        name, shape = self.any(2) if any(len(s) == 2 for s in self.values) and self.choices.chance(60) else self.any(1)
        self.small(f"{self.choices.one(REDUCTIONS)}({name})", shape[:-1])

    def _linear(self) -> None:
        size = self.choices.one((self.count, 1, 2, 5, 8, 17))
        bias = ", bias = true" if self.choices.chance(40) else ""
        self.small(f"linear({self.vector()[0]}, {size}{bias})", (size,))

    def _softmax(self) -> None:
        name, shape = self.any(1)
        self.bind(f"softmax({name})", shape)

    def _grouped(self) -> None:
        name, size = self.vector()
        groups = self.choices.one([n for n in range(1, min(size, 6) + 1) if size % n == 0])
        grouped = self.bind(f"split({name}, {groups})", (groups, size // groups))
        what = self.choices.one(("", "softmax", "best", "column"))
        if what == "softmax":
            grouped = self.bind(f"softmax({grouped})", (groups, size // groups))
        elif what == "best":
            kept = self.bind(f"top_k(max_of({grouped}), {self.choices.whole(1, groups)})", None)
            grouped = self.bind(f"where(column(chosen({kept})), {grouped}, -3)", (groups, size // groups))
        elif what == "column":
            mean = self.bind(f"{self.choices.one(REDUCTIONS)}({grouped})", (groups,))
            grouped = self.small(f"{grouped} - column({mean})", (groups, size // groups))
        self.bind(f"merge({grouped})", (size,))

    def _joined(self) -> None:
        (a, first), (b, second) = self.vector(), self.vector()
        if first + second <= 64:
            self.bind(f"concat({a}, {b})", (first + second,))

    def _part(self) -> None:
        name, shape = self.any(2) if any(len(s) == 2 for s in self.values) and self.choices.chance(60) else self.any(1)
        self.bind(f"{name}[{self.choices.whole(0, shape[0] - 1)}]", shape[1:])

    def _picked(self) -> None:
        name, size = self.vector()
        k = self.choices.whole(1, min(size, 5))
        kinds = [f"top_k({name}, {k})", f"top_p(softmax({name}), 0.6, {k})", f"below(top_k({name}, {k}), {size})"]
        pick = self.bind(self.choices.one(kinds), None)
        others = self.values[size,]
        over = f"{self.choices.one(others)} over {pick}"
        if self.choices.chance(40):
            over = f"softmax({over})"
        self.small(f"{self.choices.one(REDUCTIONS[:2])}({over})", ())
        if self.choices.chance(40):
            self.bind(f"where(chosen({pick}), {self.choices.one(others)}, -2)", (size,))

    def _parameter(self) -> None:
        shape = self.choices.one(((self.count,), (1,), (2, 4), (5,)))
        self.bind(f"{self.choices.one(('param', 'buffer'))}({', '.join(map(str, shape))})", shape)

    def _input(self) -> None:
        shape = self.choices.one(((self.count,), (4,), (2, 3), ()))
        name = f"wish{len(self.inputs)}"
        self.inputs.add(name)
        said = f"[{', '.join(map(str, shape))}]" if shape else ""
        self.lines.insert(0, f"input {name}{said} : f32")
        self.values.setdefault(shape, []).append(name)

    def _token(self) -> None:
        """A part that an input of the token chooses."""
        if "task" not in self.inputs:
            self.inputs.add("task")
            self.lines.insert(0, "input task : i32")
        size = self.choices.one((self.count, 4))
        if self.choices.chance(50):
            table = self.bind(f"{self.choices.one(('param', 'buffer'))}({TASKS}, {size})", None)
            self.bind(f"{table}[task]", (size,))
        else:
            gates = self.bind(f"linear({self.vector()[0]}, {TASKS * size})", None)
            self.bind(f"split({gates}, {TASKS})[task]", (size,))


def random_router(choices: Choices, count: int, d: int) -> tuple[str, int]:
    """The body of a router, and how many slots its pick has."""
    rows = Rows(choices, count)
    rows.values[(d,)] = ["x"]
    rows.bind("linear(x, count)", (count,))
    for _ in range(choices.whole(0, 9)):
        rows.statement()
    k = choices.whole(1, min(count, choices.one((2, 3, 7))))
    score = rows.wide()
    groups = choices.one([n for n in range(1, min(count, 6) + 1) if count % n == 0])
    picks = [f"top_k({score}, {k})", f"top_p(softmax({score}), 0.7, {k})"]
    if groups * (k // groups) == k:
        picks.append(f"merge(top_k(split({score}, {groups}), {k // groups}))")
    more, size = rows.vector()
    if count + size <= 64:
        picks.append(f"below(top_k(concat({score}, {more}), {k}), count)")
    slots = ("hash", k) if choices.chance(6) else ("", k)
    if slots[0]:
        rows.lines.insert(0, "input token : i32")
        table = rows.bind(f"buffer({VOCABULARY}, {k}) : i32", None)
        picks = [f"choose({table}[token])"]
    rows.lines.append(f"pick = {choices.one(picks)}")
    p = rows.wide()
    scalar = rows.any(0)[0] if () in rows.values else "0.5"
    weights = (
        p,
        scalar,
        f"{p} over pick",
        f"softmax({p} over pick)",
        f"abs({p}) / (0.1 + sum(abs({p}) over pick))",
        f"{scalar} * sigmoid({p} over pick)",
        f"{p} - max_of({p} over pick)",
        f"norm({p} over pick)",
    )
    rows.lines.append(f"weight = {choices.one(weights)}")
    return "\n".join(f"  {line}" for line in rows.lines), k
