"""linalg.generic on the tensors of one token.

Without a reduction, a lane works out its elements of the result.  With one, either the warp adds up the terms of one
element after the other (lanes their own terms first, then each other's), or a lane goes through the few terms of its
elements in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cuda import expressions
from moec.backends.cuda.rowvalues import Code, Readable, Uniform, Value, coordinates, count_of, read

# Reductions whose terms may be taken in any grouping: operation -> the value that changes nothing.
_NEUTRAL = {
    "arith.addf": "-0.0f",
    "arith.mulf": "1.0f",
    "arith.maximumf": "-moec::infinity()",
    "arith.minimumf": "moec::infinity()",
    "arith.maxnumf": "-moec::infinity()",
    "arith.minnumf": "moec::infinity()",
    "arith.addi": "0",
    "arith.muli": "1",
    "arith.ori": "0",
    "arith.xori": "0",
    "arith.andi": "-1",
}

_FEW_TERMS = 32
"""Up to so many terms of each of several elements are one lane's."""

Scalar = Callable[[ir.Value], str]


@dataclass(frozen=True)
class Axis:
    """A loop: how often, whether it reduces, and how many elements each operand moves on by."""

    size: int
    reduces: bool
    strides: tuple[int, ...]


def generic(code: Code, op: Any, operands: Sequence[Value], scalar: Scalar) -> list[Value]:
    """The results.  `scalar` gives what the region reads from outside."""
    operation = op.operation
    loops = _Loops(code, operation, operands, scalar)
    if not loops.reduced:
        return loops.elementwise()
    if len(operation.results) != 1:
        raise unsupported("cuda", operation, "a reduction of several results")
    terms = count_of([axis.size for axis in loops.reduced])
    if loops.combining is not None and (count_of(loops.shape) == 1 or terms > _FEW_TERMS):
        return [loops.reduce_across()]
    return [loops.reduce_within()]


def _axes(operation: ir.Operation, operands: Sequence[Value]) -> list[Axis]:
    maps = [ir.AffineMapAttr(attribute).value for attribute in ir.ArrayAttr(operation.attributes["indexing_maps"])]
    kinds = [str(kind) for kind in ir.ArrayAttr(operation.attributes["iterator_types"])]
    sizes = [1] * len(kinds)
    strides = [[0] * len(operands) for _ in kinds]
    for n, (map_, value) in enumerate(zip(maps, operands, strict=True)):
        step = 1
        for expression, size in reversed(list(zip(map_.results, value.shape, strict=True))):
            if isinstance(expression, ir.AffineDimExpr):
                sizes[expression.position] = size
                strides[expression.position][n] += step
            elif not (isinstance(expression, ir.AffineConstantExpr) and expression.value == 0):
                raise unsupported("cuda", operation, f"its indexing map {map_}")
            step *= size
    return [
        Axis(size, "reduction" in kind, tuple(moves)) for size, kind, moves in zip(sizes, kinds, strides, strict=True)
    ]


class _Loops:
    """A generic whose operands are `inputs` and then what its results start from."""

    def __init__(self, code: Code, operation: ir.Operation, operands: Sequence[Value], scalar: Scalar) -> None:
        self.code, self.operation, self.scalar = code, operation, scalar
        self.operands = [code.lanes(value) if count_of(value.shape) == 1 else value for value in operands]
        self.inputs = len(operands) - len(operation.results)
        self.block = operation.regions[0].blocks[0]
        axes = _axes(operation, operands)
        self.shape: tuple[int, ...] = operands[-1].shape
        steps = [count_of(self.shape[n + 1 :]) for n in range(len(self.shape))]
        self.reduced = [axis for axis in axes if axis.reduces]
        kept = [axis for axis in axes if not axis.reduces and axis.size != 1]
        # by the order of the result's elements, whose number tells the places along these axes
        self.kept = sorted(kept, key=lambda axis: -axis.strides[-1])
        outs = [axis.strides[self.inputs :] for axis in self.kept]
        wanted = [step for step, size in zip(steps, self.shape, strict=True) if size != 1]
        if any(set(strides) != {step} for strides, step in zip(outs, wanted, strict=True)):
            raise unsupported("cuda", operation, "its results must be laid out as its loops go")
        self.combining = self._combining()

    def _combining(self) -> Any:
        """The operation that combines the accumulator with a term, if the region is of that form."""
        (yielded, *_) = list(self.block.operations)[-1].operation.operands
        accumulator = self.block.arguments[self.inputs]
        if isinstance(yielded.owner, ir.Block) or len(list(accumulator.uses)) != 1:
            return None
        last = yielded.owner.operation
        return last if last.name in _NEUTRAL and accumulator in list(last.operands) else None

    def _number(self, operand: int, axes: Sequence[Axis], number: str) -> str:
        """Which element of an operand belongs to a place in the loops of `axes`, itself numbered."""
        places = coordinates(number, [axis.size for axis in axes])
        terms = []
        for axis, place in zip(axes, places, strict=True):
            step = axis.strides[operand]
            if step and place != "0":
                terms.append(place if step == 1 and len(axes) == 1 else f"({place}) * {step}")
        return " + ".join(terms) or "0"

    def _follows(self, operand: int, axes: Sequence[Axis], others: Sequence[Axis]) -> bool:
        """Whether an operand's elements are numbered as the places in the loops of `axes`, and `others` leave it."""
        steps = [count_of([axis.size for axis in axes[n + 1 :]]) for n in range(len(axes))]
        moves = [axis.strides[operand] for axis in axes]
        sizes = [axis.size for axis in axes]
        same = all(a == b or size == 1 for a, b, size in zip(moves, steps, sizes, strict=True))
        return (
            same
            and count_of(self.operands[operand].shape) == count_of(sizes)
            and not any(axis.strides[operand] for axis in others)
        )

    def _sources(self, along: Callable[[int], bool], many: int) -> list[Readable | None]:
        """Operands that all lanes read anywhere; None for those that are read where they are."""
        spread = [n for n in range(many) if not along(n)]
        found = dict(zip(spread, self.code.together(*(self.operands[n] for n in spread)), strict=True))
        return [found.get(n) for n in range(many)]

    def _evaluate(self, arguments: Sequence[str], wanted: Sequence[ir.Value]) -> list[str]:
        """Prints the region for one element; names of the values that are asked for."""
        names: dict[ir.Value, str] = dict(zip(self.block.arguments, arguments, strict=False))

        def named(value: ir.Value) -> str:
            if value not in names:
                names[value] = self._compute(value, named)
            return names[value]

        return [named(value) for value in wanted]

    def _compute(self, value: ir.Value, named: Scalar) -> str:
        owner = value.owner
        if isinstance(owner, ir.Block) or owner.operation.block != self.block:
            return self.scalar(value)
        operation = owner.operation
        if operation.name == "arith.constant":
            return expressions.constant(operation)
        text = expressions.apply(operation, [named(operand) for operand in operation.operands])
        name = self.code.name("e")
        self.code.line(f"const {expressions.register_type(operation, value.type)} {name} = {text};")
        return name

    def elementwise(self) -> list[Value]:
        code = self.code
        used = [bool(list(argument.uses)) for argument in self.block.arguments]
        yielded = list(self.block.operations)[-1].operation.operands
        elements = [expressions.element_of(value.type) for value in yielded]
        if all(isinstance(value, Uniform) for value, read_ in zip(self.operands, used, strict=True) if read_):
            texts = [value.text if isinstance(value, Uniform) else "" for value in self.operands]
            found = self._evaluate(texts, yielded)
            return [Uniform(self.shape, element, text) for element, text in zip(elements, found, strict=True)]
        sources = self._sources(lambda n: not used[n] or self._follows(n, self.kept, []), len(self.operands))
        outs = [code.declare(self.shape, element) for element in elements]

        def each(r: str, i: str) -> None:
            texts = []
            for n, source in enumerate(sources):
                if not used[n]:
                    texts.append("0")
                elif source is None:
                    texts.append(code.element(self.operands[n], r, i))
                else:
                    texts.append(code.inside(self.shape, i, read(source, self._number(n, self.kept, i))))
            for out, text in zip(outs, self._evaluate(texts, yielded), strict=True):
                code.line(f"{out.at(r)} = {text};")

        if count_of(self.shape) == 1:
            each("0", "0")
        else:
            code.each(self.shape, each)
        return [code.settled(out) for out in outs]

    def reduce_across(self) -> Value:
        """The whole warp adds up one element after the other."""
        code = self.code
        sizes = tuple(axis.size for axis in self.reduced)
        sources = self._sources(lambda n: self._follows(n, self.reduced, self.kept), self.inputs)
        accumulator = self.block.arguments[self.inputs]
        left, right = self.combining.operands
        term_of = right if left == accumulator else left
        element = expressions.element_of(self.operation.results[0].type)
        type_ = expressions.REGISTER[element]
        neutral = "true" if self.combining.name == "arith.andi" and element == "i1" else _NEUTRAL[self.combining.name]

        def combine(a: str, b: str) -> str:
            return expressions.apply(self.combining, [a, b])

        def total(line: str) -> str:
            name = code.name("sum")
            code.line(f"{type_} {name} = {neutral};")

            def terms(r: str, i: str) -> None:
                texts = []
                for n, source in enumerate(sources):
                    if source is None:
                        texts.append(code.element(self.operands[n], r, i))
                        continue
                    fixed, moving = self._number(n, self.kept, line), self._number(n, self.reduced, i)
                    texts.append(code.inside(sizes, i, read(source, f"{fixed} + {moving}")))
                (term,) = self._evaluate(texts, [term_of])
                guard = f"if ({i} < {count_of(sizes)}) " if count_of(sizes) % 32 else ""
                code.line(f"{guard}{name} = {combine(name, term)};")

            code.each(sizes, terms)
            return code.across(name, combine, type_)

        start = self.operands[-1]
        if count_of(self.shape) == 1:
            return code.uniform(self.shape, element, combine(code.element(start, "0", "0"), total("0")))
        out, line = code.declare(self.shape, element), code.name("line")

        def one() -> None:
            everything = total(line)
            code.each(self.shape, lambda r, i: code.line(f"if ({i} == {line}) {out.at(r)} = {everything};"))

        code.block(f"for (int {line} = 0; {line} < {count_of(self.shape)}; ++{line})", one)
        return code.fill(self.shape, element, lambda r, i: combine(code.element(start, r, i), out.at(r)))

    def reduce_within(self) -> Value:
        """A lane goes through the terms of its elements, in order."""
        code = self.code
        sources = self._sources(lambda n: False, self.inputs)
        yielded = list(self.block.operations)[-1].operation.operands
        out = code.declare(self.shape, expressions.element_of(yielded[0].type))
        terms = count_of([axis.size for axis in self.reduced])
        j = code.name("j")

        def each(r: str, i: str) -> None:
            code.line(f"{out.at(r)} = {code.element(self.operands[-1], r, i)};")
            valid = f"{i} < {count_of(self.shape)} && " if count_of(self.shape) % 32 else ""

            def step() -> None:
                texts = [
                    read(source, f"{self._number(n, self.kept, i)} + {self._number(n, self.reduced, j)}")
                    for n, source in enumerate(sources)
                    if source is not None
                ]
                (value,) = self._evaluate([*texts, out.at(r)], yielded)
                code.line(f"{out.at(r)} = {value};")

            code.block(f"for (int {j} = 0; {valid}{j} < {terms}; ++{j})", step)

        code.each(self.shape, each)
        return code.settled(out)
