"""Row programs as terms, equal ones the same object, with what fixed-point numbers do not know of left out.

Conversions between float types and rounding of rows are left out: where numbers are rounded is the target's choice.
What the language writes a softmax, a sigmoid, SiLU, GELU and ReLU with becomes one term each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch_mlir import ir

Constant = float | int | str | tuple[int, ...] | None

_SAME = ("arith.extf", "arith.truncf", "moe.quantize_row", "arith.index_cast", "tensor.extract")
_ELEMENTWISE = {
    "arith.addf": "add",
    "arith.mulf": "mul",
    "arith.subf": "sub",
    "arith.divf": "div",
    "arith.maximumf": "max",
    "arith.negf": "neg",
    "math.exp": "exp",
    "math.erf": "erf",
}
_PLAIN = {"moe.own": "own", "moe.row": "row", "moe.take": "take"}
_REDUCTIONS = {"arith.addf": "sum", "arith.maximumf": "most"}


@dataclass(frozen=True, eq=False)
class Term:
    """What a value is: `kind` of `parts`; `value` is what else the kind needs; `op` made it first."""

    kind: str
    parts: tuple[Term, ...]
    value: Constant
    op: ir.Operation | None

    def __getitem__(self, index: int) -> Term:
        return self.parts[index]


class Terms:
    """Terms of the values of a function and of the regions in it; `shapes` are those of arguments by name."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._known: dict[tuple[str, tuple[int, ...], Constant], Term] = {}
        self._of: dict[ir.Value, Term] = {}

    def bind(self, value: ir.Value, kind: str, name: Constant = None) -> Term:
        """Make the term of a value that no operation gives."""
        self._of[value] = self.make(kind, (), name)
        return self._of[value]

    def block(self, block: ir.Block) -> tuple[ir.Operation, list[Term]]:
        """The terms of what a block's operations give; returns its terminator and the terms that it hands on."""
        operations = [op.operation for op in block.operations]
        for op in operations[:-1]:
            for number, result in enumerate(op.results):
                self._of[result] = self._term(op, number)
        return operations[-1], [self._of[v] for v in operations[-1].operands]

    def prepare(self, block: ir.Block) -> None:
        """The terms of what a function's block computes of its parameters: of results without a batch axis."""
        for op in (o.operation for o in block.operations):
            if op.regions or any(value not in self._of for value in op.operands):
                continue
            for number, result in enumerate(op.results):
                self._of[result] = self._term(op, number)

    def make(self, kind: str, parts: tuple[Term, ...], value: Constant = None, op: ir.Operation | None = None) -> Term:
        """The one term of this kind with these parts, in its simplest form."""
        if kind in ("add", "mul", "max"):  # in a fixed order, constants last
            parts = tuple(sorted(parts, key=lambda p: (p.kind == "number", id(p))))
        simpler = self._simplify(kind, parts, op)
        if simpler is not None:
            return simpler
        key = (kind, tuple(id(p) for p in parts), value)
        if key not in self._known:
            self._known[key] = Term(kind, parts, value, op)
        return self._known[key]

    def _term(self, op: ir.Operation, number: int) -> Term:
        parts = tuple(self._of[v] for v in op.operands)
        name = op.name
        if name in _SAME:
            return parts[0]
        if name in _ELEMENTWISE:
            return self.make(_ELEMENTWISE[name], parts, op=op)
        if name in _PLAIN:
            return self.make(_PLAIN[name], parts, op=op)
        if name == "arith.constant":
            return self._constant(op)
        if name == "linalg.matvec" and parts[2] is self.make("number", (), 0.0):
            return self.make("linear", parts[:2], op=op)
        if name in ("linalg.reduce", "linalg.broadcast"):
            return self._over_axes(op, parts)
        if name in ("tensor.expand_shape", "tensor.collapse_shape"):
            return self._reshaped(op, parts[0])
        if name in ("moe.top_k", "moe.quantize", "moe.dequantize"):
            return self._with_attribute(op, parts, number)
        if name == "tensor.extract_slice" and len(parts) == 2:
            return self.make("part", parts, tuple(ir.DenseI64ArrayAttr(op.attributes["static_sizes"])), op)
        if name == "moe.chosen" and parts[0].kind == "top_k" and _size(op.operands[0]) == _size(op.results[0]):
            return self.make("everywhere", (), op=op)
        if name == "arith.select" and parts[0].kind == "everywhere":
            return parts[1]
        return self._opaque(op, parts)

    def _opaque(self, op: ir.Operation, parts: tuple[Term, ...]) -> Term:
        """Of something without meaning here: equal to nothing else."""
        return self.make(op.name, parts, len(self._known), op)

    def _constant(self, op: ir.Operation) -> Term:
        value = op.attributes["value"]
        if isinstance(op.results[0].type, ir.ShapedType):
            dense = ir.DenseElementsAttr(value)
            if not dense.is_splat:
                return self.make("numbers", (), str(np.array(dense).tolist()), op)
            value = dense.get_splat_value()
        plain = ir.FloatAttr(value).value if isinstance(value, ir.FloatAttr) else ir.IntegerAttr(value).value
        return self.make("number", (), float(plain), op)

    def _over_axes(self, op: ir.Operation, parts: tuple[Term, ...]) -> Term:
        rank = ir.RankedTensorType(op.operands[0].type).rank
        if op.name == "linalg.broadcast":
            if rank == 0 or parts[0].kind == "everywhere":
                return parts[0]
            return self.make("spread", parts[:1], tuple(ir.RankedTensorType(op.results[0].type).shape), op)
        body = [inner.operation.name for inner in op.regions[0].blocks[0].operations]
        start = {"sum": 0.0, "most": -math.inf}
        if len(body) == 2 and body[0] in _REDUCTIONS and rank == 1:
            kind = _REDUCTIONS[body[0]]
            if parts[1] is self.make("number", (), start[kind]):
                return self.make(kind, parts[:1], op=op)
        return self._opaque(op, parts)

    def _reshaped(self, op: ir.Operation, part: Term) -> Term:
        before, after = (tuple(ir.RankedTensorType(v.type).shape) for v in (op.operands[0], op.results[0]))
        if part.kind in ("number", "everywhere"):
            return part
        if part.kind == "reshaped" and part.op is not None:
            original = tuple(ir.RankedTensorType(part.op.operands[0].type).shape)
            if original == after:
                return part[0]
        return part if before == after else self.make("reshaped", (part,), after, op)

    def _with_attribute(self, op: ir.Operation, parts: tuple[Term, ...], number: int) -> Term:
        if op.name == "moe.top_k":
            return self.make("top_k", parts, int(ir.IntegerAttr(op.attributes["k"]).value), op)
        form = str(ir.StringAttr(op.attributes["format"]).value)
        if op.name == "moe.quantize":
            return self.make("codes" if number == 0 else "scales", parts, form, op)
        whole = parts[0].kind == "codes" and parts[1].kind == "scales" and parts[0][0] is parts[1][0]
        kept = (parts[0][0],) if whole else parts
        groups = ir.RankedTensorType(op.operands[1].type).shape[-1]
        return self.make("stored", kept, f"{form} {groups}", op)

    def _simplify(self, kind: str, parts: tuple[Term, ...], op: ir.Operation | None) -> Term | None:
        """A form with a name for what is made of several operations; None where it is none."""
        if kind == "max" and number(parts[1]) == 0.0:
            return self.make("relu", parts[:1], op=op)
        if kind == "div":
            return self._quotient(parts[0], parts[1], op)
        if kind == "mul":
            return self._gelu(parts, op)
        return None

    def _quotient(self, top: Term, bottom: Term, op: ir.Operation | None) -> Term | None:
        if bottom.kind == "sum" and bottom[0] is top and top.kind == "exp" and top[0].kind == "sub":
            value, most = top[0].parts
            if most.kind == "most" and most[0] is value:
                return self.make("softmax", (value,), op=op)
        if bottom.kind == "add" and number(bottom[1]) == 1.0 and bottom[0].kind == "exp" and bottom[0][0].kind == "neg":
            value = bottom[0][0][0]
            if number(top) == 1.0:
                return self.make("sigmoid", (value,), op=op)
            if top is value:
                return self.make("silu", (value,), op=op)
        return None

    def _gelu(self, parts: tuple[Term, ...], op: ir.Operation | None) -> Term | None:
        for half, rest in (parts, parts[::-1]):
            if half.kind == "mul" and number(half[1]) == 0.5 and rest.kind == "add" and number(rest[1]) == 1.0:
                value, inner = half[0], rest[0]
                if inner.kind == "erf" and inner[0].kind == "mul" and inner[0][0] is value:
                    factor = number(inner[0][1])
                    if factor is not None and math.isclose(factor, math.sqrt(0.5), rel_tol=1e-6):
                        return self.make("gelu", (value,), op=op)
        return None


def _size(value: ir.Value) -> int:
    return int(ir.RankedTensorType(value.type).shape[-1])


def number(term: Term) -> float | None:
    """What a constant is, the same in all places; None where the term is none."""
    return float(term.value) if term.kind == "number" and isinstance(term.value, (int, float)) else None


def peel_bias(term: Term) -> tuple[Term, Term | None]:
    """A linear and what is added to it, if anything is."""
    if term.kind == "add":
        for one, other in (term.parts, term.parts[::-1]):
            if one.kind == "linear":
                return one, other
    return term, None
