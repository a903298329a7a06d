"""The choosing operations of a row program: moe.top_k, moe.top_p, moe.take, moe.chosen, moe.put."""

from __future__ import annotations

from typing import Any

from torch_mlir import ir

from moec.backends.cuda.rowvalues import Code, Lanes, Value, count_of, read, registers


class _Keys:
    """The keys of one list of `count` floats, from which the largest are taken."""

    def __init__(self, code: Code, count: int) -> None:
        self.code, self.count = code, count
        self.name = code.name("keys")
        code.line(f"moec::u32 {self.name}[{registers((count,))}];")

    def fill(self, values: Value, begin: str = "0") -> None:
        """From the elements of `values` from `begin` on."""

        def key(r: str, i: str) -> str:
            if isinstance(values, Lanes):
                text = values.at(r)
            else:
                text = read(values, i if begin == "0" else f"{begin} + {i}")
            return self.code.inside((self.count,), i, f"moec::key_of({text})")

        self.code.each((self.count,), lambda r, i: self.code.line(f"{self.name}[{r}] = {key(r, i)};"))

    def take(self, body: str) -> None:
        self.code.line(f"const moec::Largest {body} = moec::take_largest({self.name});")


def top_k(code: Code, op: Any, values: Value) -> Value:
    out = code.declare(_shape(op), "i32")
    count, k = values.shape[-1], out.shape[-1]
    lines = count_of(values.shape[:-1])
    # a single list is read where it is; of several, each has the whole warp
    source: Value = values if lines == 1 else code.together(values)[0]
    keys = _Keys(code, count)
    line, j, largest = code.name("line"), code.name("j"), code.name("largest")

    def take() -> None:
        keys.take(largest)
        place = j if lines == 1 else f"{line} * {k} + {j}"
        code.each(out.shape, lambda r, i: code.line(f"if ({i} == {place}) {out.at(r)} = {largest}.place;"))

    def each_line() -> None:
        keys.fill(source, "0" if lines == 1 else f"{line} * {count}")
        code.block(f"for (int {j} = 0; {j} < {k}; ++{j})", take)

    if lines == 1:
        each_line()
    else:
        code.block(f"for (int {line} = 0; {line} < {lines}; ++{line})", each_line)
    return code.settled(out)


def top_p(code: Code, op: Any, values: Value) -> Value:
    """The mass before a position is summed up in f32, in the order of choice."""
    out = code.declare(_shape(op), "i32")
    mass = ir.FloatAttr(op.operation.attributes["mass"]).value
    keys = _Keys(code, values.shape[-1])
    keys.fill(values)
    before, j, largest, chosen = code.name("before"), code.name("j"), code.name("largest"), code.name("chosen")
    code.line(f"float {before} = 0.0f;")

    def take() -> None:
        keys.take(largest)
        code.line(f"const int {chosen} = {j} == 0 || (double){before} < {mass!r} ? {largest}.place : -1;")
        code.each(out.shape, lambda r, i: code.line(f"if ({i} == {j}) {out.at(r)} = {chosen};"))
        code.line(f"{before} += moec::value_of_key({largest}.key);")

    code.block(f"for (int {j} = 0; {j} < {count_of(out.shape)}; ++{j})", take)
    return code.settled(out)


def take(code: Code, op: Any, values: Value, index: Value) -> Value:
    """0 at an empty slot, and at a position beyond the last."""
    shape = _shape(op)
    count, k = values.shape[-1], shape[-1]
    places = code.lanes(index)
    (source,) = code.together(values)
    several = count_of(shape[:-1]) > 1

    def element(r: str, i: str) -> str:
        place = code.element(places, r, i)
        at = f"{i} / {k} * {count} + {place}" if several else place
        found = f"moec::as_unsigned({place}) < {count} ? {read(source, at)} : 0"
        return code.inside(shape, i, f"({found})")

    return code.fill(shape, values.element, element)


def chosen(code: Code, op: Any, index: Value) -> Value:
    return _scatter(code, _shape(op), "i1", index, None)


def put(code: Code, op: Any, values: Value, index: Value) -> Value:
    """A position outside of the result is left out."""
    return _scatter(code, _shape(op), "f32", index, values)


def _scatter(code: Code, shape: tuple[int, ...], element: str, index: Value, values: Value | None) -> Value:
    """Every lane looks through the positions of its elements' lists, in order."""
    count, k = shape[-1], index.shape[-1]
    given = code.together(index) if values is None else code.together(index, values)
    out = code.declare(shape, element)
    several = count_of(shape[:-1]) > 1
    j = code.name("j")

    def each(r: str, i: str) -> None:
        column, slot = (f"{i} % {count}", f"{i} / {count} * {k} + {j}") if several else (i, j)
        hit = f"{read(given[0], slot)} == {column}"
        step = f"{out.at(r)} |= {hit};" if values is None else f"if ({hit}) {out.at(r)} += {read(given[1], slot)};"
        valid = f"{i} < {count_of(shape)} && " if count_of(shape) % 32 else ""
        code.block(f"for (int {j} = 0; {valid}{j} < {k}; ++{j})", lambda: code.line(step))

    code.each(shape, each)
    return code.settled(out)


def _shape(op: Any) -> tuple[int, ...]:
    return tuple(ir.RankedTensorType(op.operation.results[0].type).shape)
