"""Turns the linears of a row program into matmuls over all rows, with the elementwise operations as their epilogues.

A row program (the region of `moe.experts` or `moe.route`) is written for one token: `linalg.matvec` on its row, then
`arith`/`math` on small tensors.  Here every matvec becomes one matmul operation, in order.  An elementwise
operation goes into the epilogue of the last matmul that it depends on; what an epilogue needs of an earlier matmul it
reads back with `moe.element`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch_mlir import ir

from moec.dialect import ElementOp, QuantizeRowsOp
from moec.passes.rewriting import count_axis, defining, dims, element_type, operations

ELEMENTWISE = ("arith.", "math.")
RESHAPES = ("linalg.broadcast", "tensor.collapse_shape", "tensor.expand_shape")


class NotARowMatmul(Exception):
    """Why a value of a row program cannot become part of a matmul."""


@dataclass(frozen=True)
class Leaf:
    """A tensor that an epilogue reads by `moe.element`, and how."""

    tensor: ir.Value
    kind: str


Emit = Callable[[ir.Value, ir.Value, ir.Type, Callable[[ir.Value], ir.Value]], ir.Value]
"""(lhs, weights, result element type, epilogue from accumulator to value) to the matmul's result."""


@dataclass
class RowMatmuls:
    """The state of one such lowering.

    `row` is the block argument, whose tensor over all rows is `rows`; `row_kind` is how an epilogue reads it ("row" or
    "token").  `emit` makes one matmul at the insertion point.
    """

    block: ir.Block
    rows: ir.Value
    row_kind: str
    emit: Emit
    materialised: dict[ir.Value, ir.Value] = field(default_factory=dict)
    quantised: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def is_row(self, value: ir.Value) -> bool:
        """Whether a value is the block's argument; a map has none, and reads its row by `moe.row`."""
        return isinstance(value, ir.BlockArgument) and bool(value.owner == self.block)

    def lower(self, matvec: ir.Operation, gives: ir.Value) -> None:
        """Emit the matmul of one matvec; its result holds `gives`: the matvec's own result or one built on it."""
        matrix, vector, start = matvec.operands
        if not starts_at_zero(start):
            raise NotARowMatmul("a linear's sum must start at zero")
        lhs = self._lhs(vector)
        acc = matvec.results[0]

        def epilogue(accumulator: ir.Value) -> ir.Value:
            return self.scalar(gives, {acc: accumulator})

        self.materialised[gives] = self.emit(lhs, self.weights(matrix), element_type(gives), epilogue)

    def _lhs(self, vector: ir.Value) -> ir.Value:
        if self.is_row(vector):
            return self.rows
        if vector in self.materialised:
            return self.materialised[vector]
        op = defining(vector)
        if op is not None and op.name == "moe.quantize_row":
            return self._quantised(self._lhs(op.operands[0]))
        if op is not None and op.name == "arith.extf" and self.is_row(op.operands[0]):
            return self.rows  # a matmul widens its operand by itself
        if op is not None and op.name == "moe.row":
            return op.operands[0]
        raise NotARowMatmul("the input of a linear is neither the token nor made from one earlier linear")

    def _quantised(self, rows: ir.Value) -> ir.Value:
        """All rows as int8; once, however many linears multiply them."""
        if rows not in self.quantised:
            f32 = ir.F32Type.get(rows.context)
            type_ = ir.RankedTensorType.get([ir.ShapedType.get_dynamic_size(), dims(rows)[1]], f32)
            self.quantised[rows] = QuantizeRowsOp(rows, out=type_).out
        return self.quantised[rows]

    def weights(self, matrix: ir.Value) -> ir.Value:
        """The whole parameter, tensor<ExNxK>, of which a row program sees one expert's matrix."""
        op = defining(matrix)
        if op is not None and op.name == "moe.own":
            return op.operands[0]
        if not inside(matrix, self.block):
            return count_axis(matrix)
        raise NotARowMatmul("the matrix of a linear must be a parameter")

    def dependencies(self, value: ir.Value) -> list[ir.Operation]:
        """The matvecs that a value reaches through elementwise operations, in block order."""
        found: list[ir.Operation] = []
        seen: set[ir.Value] = set()
        pending = [value]  # not by recursion: a program may be thousands of operations deep
        while pending:
            v = pending.pop()
            op = defining(v)
            if v in seen or op is None or not inside(v, self.block):
                continue
            seen.add(v)
            if op.name == "linalg.matvec":
                found.append(op)
            else:
                pending += op.operands
        order = [op.operation for op in operations(self.block, "linalg.matvec")]
        return sorted(found, key=order.index)

    def home(self, wanted: ir.Value) -> ir.Operation | None:
        """The matvec whose epilogue makes a value: the last of its size that it depends on.  None: it depends on none.

        Raises NotARowMatmul where the value is wider than all of them.
        """
        homes = self.dependencies(wanted)
        size = math.prod(dims(wanted))
        found = next((op for op in reversed(homes) if math.prod(dims(op.results[0])) == size), None)
        if homes and found is None:
            raise NotARowMatmul("a value is wider than every linear that it is made of")
        return found

    def elementwise(self, value: ir.Value) -> bool:
        """Whether a value can be computed element by element from matvecs, the row and parameters."""
        pending, seen = [value], set[ir.Value]()
        while pending:
            v = pending.pop()
            op = defining(v)
            if v in seen or op is None or not inside(v, self.block):
                continue
            if op.name in ("linalg.matvec", "moe.own", "moe.row"):
                continue
            seen.add(v)
            if op.name == "arith.constant" and not is_splat(op):
                return False
            if op.name not in RESHAPES and not op.name.startswith(ELEMENTWISE):
                return False
            pending += [op.operands[0]] if op.name in RESHAPES else op.operands
        return True

    def scalar(self, value: ir.Value, known: dict[ir.Value, ir.Value]) -> ir.Value:
        """Rebuild one element of a row-program value at the insertion point (inside an epilogue)."""
        pending = [value]
        while pending:
            needs = [] if pending[-1] in known else [v for v in self._read(pending[-1]) if v not in known]
            pending += reversed(needs)
            if not needs:
                done = pending.pop()
                if done not in known:
                    known[done] = self._scalar(done, known)
        return known[value]

    def _read(self, value: ir.Value) -> list[ir.Value]:
        """The values of which one element of `value` is made."""
        op = defining(value)
        if op is None or value in self.materialised or not inside(value, self.block):
            return []
        if op.name in RESHAPES:
            return [_same_elements(op)]
        return list(op.operands) if op.name.startswith(ELEMENTWISE) else []

    def _scalar(self, value: ir.Value, known: dict[ir.Value, ir.Value]) -> ir.Value:
        """One element of a value; of what it is made of, `known` has those."""
        if value in self.materialised:
            return self._element(Leaf(self.materialised[value], "row"), value)
        if self.is_row(value):
            return self._element(Leaf(self.rows, self.row_kind), value)
        op = defining(value)
        if op is not None and (inside(value, self.block) or op.name == "arith.constant"):
            return self._scalar_of(op, value, known)
        if self.row_kind == "token":  # a parameter that a router reads whole
            return self._element(Leaf(count_axis(value), "column"), value)
        raise NotARowMatmul("an elementwise operation reads a parameter that is not the expert's own")

    def _scalar_of(self, op: ir.Operation, value: ir.Value, known: dict[ir.Value, ir.Value]) -> ir.Value:
        if op.name == "arith.constant" and is_splat(op):
            splat = ir.DenseElementsAttr(op.attributes["value"]).get_splat_value()
            return ir.Operation.create("arith.constant", [splat.type], [], {"value": splat}).result
        if op.name == "moe.own":
            return self._element(Leaf(op.operands[0], "column"), value)
        if op.name == "moe.row":
            return self._element(Leaf(op.operands[0], "token"), value)
        if op.name in RESHAPES:
            return known[_same_elements(op)]
        if op.name.startswith(ELEMENTWISE):
            return scalar_copy(op, known)
        if op.name == "linalg.matvec":
            raise NotARowMatmul("two different values made from one linear are needed by later linears")
        raise NotARowMatmul(f"{op.name} is not computed element by element")

    def _element(self, leaf: Leaf, value: ir.Value) -> ir.Value:
        shape = dims(value)
        if len(shape) > 1:
            raise NotARowMatmul(f"a value of {len(shape)} axes is not one of a row's columns")
        kind = leaf.kind
        if shape in ([1], []):
            kind = {"row": "scalar", "token": "token_scalar", "column": "expert"}[kind]
        tensor = leaf.tensor
        kind_attr = ir.StringAttr.get(kind)
        return ElementOp(tensor, kind_attr, element_type(tensor)).element


def row_of(vector: ir.Value) -> ir.Value:
    """The input of a linear before it was rounded to int8, if it was."""
    op = defining(vector)
    return op.operands[0] if op is not None and op.name == "moe.quantize_row" else vector


def inside(value: ir.Value, block: ir.Block) -> bool:
    """Whether a value is made in this block."""
    if isinstance(value, ir.BlockArgument):
        return bool(value.owner == block)
    return bool(value.owner.operation.block == block)


def _same_elements(reshape: ir.Operation) -> ir.Value:
    """The operand of a reshape whose elements are those of the result, one by one, or the one element of all."""
    before, after = reshape.operands[0], reshape.results[0]
    if math.prod(dims(before)) not in (1, math.prod(dims(after))):
        raise NotARowMatmul(f"{reshape.name} repeats elements")
    return before


def starts_at_zero(value: ir.Value) -> bool:
    """Whether what a linear's sum starts at is a constant 0."""
    op = defining(value)
    if op is None or op.name != "arith.constant" or not is_splat(op):
        return False
    return float(ir.FloatAttr(ir.DenseElementsAttr(op.attributes["value"]).get_splat_value()).value) == 0.0


def is_splat(constant: ir.Operation) -> bool:
    value = constant.attributes["value"]
    return isinstance(value, ir.DenseElementsAttr) and bool(value.is_splat)


def scalar_copy(op: ir.Operation, known: dict[ir.Value, ir.Value]) -> ir.Value:
    """The operation on scalars instead of tensors."""
    types = [element_type(result) for result in op.results]
    attributes = {name: op.attributes[name] for name in op.attributes}
    made = ir.Operation.create(op.name, types, [known[v] for v in op.operands], attributes, loc=op.location)
    return made.result
