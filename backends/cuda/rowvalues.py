"""Small tensors of one token while a warp runs its row program, and the C++ that moves them about.

A tensor is flat and row-major here: lane l holds its elements l, l + 32, ....  What lanes hold behind the last element
is arbitrary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from moec.backends.cuda import expressions

UNROLLED = 64
"""Loops over a tensor's registers are unrolled up to so many; longer tensors lie in the thread's local memory."""


@dataclass(frozen=True)
class Uniform:
    """Every element is `text`, the same in all lanes."""

    shape: tuple[int, ...]
    element: str
    text: str


@dataclass(frozen=True)
class Lanes:
    """Spread over the lanes' registers."""

    shape: tuple[int, ...]
    element: str
    name: str

    def at(self, register: str) -> str:
        return self.name if registers(self.shape) == 1 else f"{self.name}[{register}]"


@dataclass(frozen=True)
class Memory:
    """In memory that all lanes read: `read` makes an expression of an element's number."""

    shape: tuple[int, ...]
    element: str
    read: Callable[[str], str]


Readable = Uniform | Memory
Value = Readable | Lanes


def count_of(shape: Sequence[int]) -> int:
    return math.prod(shape)


def registers(shape: Sequence[int]) -> int:
    """How many registers of each lane a tensor takes."""
    return max(1, -(-count_of(shape) // 32))


def read(value: Readable, number: str) -> str:
    """The expression of an element, whose number exists."""
    return value.text if isinstance(value, Uniform) else value.read(number)


def coordinates(number: str, shape: Sequence[int]) -> list[str]:
    """Expressions of an element's place along each axis."""
    found = []
    for axis, size in enumerate(shape):
        step = count_of(shape[axis + 1 :])
        text = number if step == 1 else f"{number} / {step}"
        if size == 1:
            text = "0"
        elif axis > 0 and any(n != 1 for n in shape[:axis]):
            text = f"({text}) % {size}"
        found.append(text)
    return found


def flat(places: Sequence[str], shape: Sequence[int]) -> str:
    """The expression of an element's number, from its place along each axis."""
    terms = []
    for axis, place in enumerate(places):
        step = count_of(shape[axis + 1 :])
        if place != "0":
            terms.append(f"({place})" + (f" * {step}" if step != 1 else ""))
    return " + ".join(terms) or "0"


class Code:
    """The statements of a kernel while they are printed, and the shared memory that a warp needs for them.

    Where the statements stand, `lane` is the thread's lane and `scratch` a pointer to the warp's shared memory.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.scratch_bytes = 0
        self._indent = 1
        self._names = 0
        self._spilled = 0

    def indent(self, more: int) -> None:
        """What follows stands so many blocks deeper."""
        self._indent += more

    def line(self, text: str) -> None:
        self.lines.append("  " * self._indent + text)

    def name(self, prefix: str = "v") -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    def block(self, head: str, body: Callable[[], None]) -> None:
        self.line(head + " {")
        self._indent += 1
        body()
        self._indent -= 1
        self.line("}")

    # --- elements

    def each(self, shape: Sequence[int], body: Callable[[str, str], None]) -> None:
        """`body(register, number)` prints statements for an element of a lane; both are expressions.

        The element may be one behind the last.
        """
        many = registers(shape)
        if many == 1:
            body("0", "lane")
            return
        if many <= UNROLLED:
            self.line("MOEC_UNROLL")
        r = self.name("r")
        self.block(f"for (int {r} = 0; {r} < {many}; ++{r})", lambda: body(r, f"({r} * 32 + lane)"))

    def declare(self, shape: tuple[int, ...], element: str) -> Lanes:
        """A tensor of zeros whose registers are to be set."""
        made = Lanes(shape, element, self.name())
        many = registers(shape)
        self.line(f"{expressions.REGISTER[element]} {made.name}{'' if many == 1 else f'[{many}]'} = {{}};")
        return made

    def fill(self, shape: tuple[int, ...], element: str, text: Callable[[str, str], str]) -> Uniform | Lanes:
        """A tensor of `text(register, number)`; uniform if it has one element."""
        if count_of(shape) == 1:
            return self.uniform(shape, element, text("0", "0"))
        made = self.declare(shape, element)
        self.each(shape, lambda r, i: self.line(f"{made.at(r)} = {text(r, i)};"))
        return made

    def settled(self, out: Lanes) -> Uniform | Lanes:
        """The same tensor, uniform if it has one element: the lane that has it tells the others."""
        if count_of(out.shape) > 1:
            return out
        text = f"(bool)moec::shuffle((int){out.name}, 0)" if out.element == "i1" else f"moec::shuffle({out.name}, 0)"
        return self.uniform(out.shape, out.element, text)

    def uniform(self, shape: tuple[int, ...], element: str, text: str) -> Uniform:
        name = self.name("u")
        self.line(f"const {expressions.REGISTER[element]} {name} = {text};")
        return Uniform(shape, element, name)

    def element(self, value: Value, register: str, number: str) -> str:
        """An expression of an element of this lane: of `number`, which stands in `register`."""
        if isinstance(value, Uniform):
            return value.text
        return value.at(register) if isinstance(value, Lanes) else self.inside(value.shape, number, value.read(number))

    def inside(self, shape: Sequence[int], number: str, text: str) -> str:
        """`text` where there is an element of this number; what has none is not read."""
        if count_of(shape) % 32 == 0 or count_of(shape) == 1:
            return text
        return f"({number} < {count_of(shape)} ? {text} : 0)"

    def lanes(self, value: Value) -> Uniform | Lanes:
        """The tensor in registers."""
        if not isinstance(value, Memory):
            return value
        return self.fill(value.shape, value.element, lambda r, i: self.inside(value.shape, i, value.read(i)))

    # --- what every lane reads

    def together(self, *values: Value) -> list[Readable]:
        """The tensors so that every lane can read every element: those of registers go through shared memory.

        They stay there until this is called the next time.
        """
        if any(isinstance(value, Lanes) for value in values):
            self.line("moec::sync_warp();")
        self._spilled = 0
        found = [self._spill(value) if isinstance(value, Lanes) else value for value in values]
        if self._spilled:
            self.line("moec::sync_warp();")
        return found

    def _spill(self, value: Lanes) -> Memory:
        kept = {"bool": "int"}.get(expressions.REGISTER[value.element], expressions.REGISTER[value.element])
        name, count = self.name("s"), count_of(value.shape)
        self.line(f"const moec::Shared<{kept}> {name} = moec::shared_array<{kept}>(scratch + {self._spilled});")
        self._spilled += -(-count * (8 if kept == "moec::i64" else 4) // 16) * 16
        self.scratch_bytes = max(self.scratch_bytes, self._spilled)
        guard = "" if count % 32 == 0 else f"if ({{}} < {count}) "
        self.each(value.shape, lambda r, i: self.line(f"{guard.format(i)}{name}[{i}] = {value.at(r)};"))
        register = expressions.REGISTER[value.element]
        return Memory(value.shape, value.element, lambda i: f"({register}){name}[{i}]")

    def gather(self, shape: tuple[int, ...], value: Value, place: Callable[[str], str]) -> Value:
        """A tensor of this shape whose element i is number `place(i)` of `value`."""
        if isinstance(value, Uniform):
            return replace(value, shape=shape)
        (source,) = self.together(value)
        return self.fill(shape, value.element, lambda r, i: self.inside(shape, i, read(source, place(i))))

    def across(self, text: str, combine: Callable[[str, str], str], type_: str) -> str:
        """The name of what all lanes' `text` come to, in a fixed order, the same bits in each lane."""
        name = self.name("t")
        self.line(f"{type_} {name} = {text};")
        mask = self.name("m")
        other = f"moec::shuffle_xor({name}, {mask})"
        step = combine(name, other if type_ != "bool" else f"(bool)moec::shuffle_xor((int){name}, {mask})")
        self.line("MOEC_UNROLL")
        self.block(f"for (int {mask} = 16; {mask} > 0; {mask} /= 2)", lambda: self.line(f"{name} = {step};"))
        return name
