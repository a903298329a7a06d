"""The graph of one token's program to operations inside a region."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch_mlir import ir
from torch_mlir.dialects import arith, tensor

from moec.dialect import ChosenOp, QuantizeRowOp, TakeOp, TopKOp, TopPOp
from moec.frontend.graph import DType, Node, PickType, TensorType
from moec.frontend.lowering import emit, formulas

UNARY = frozenset({
    "neg", "not", "abs", "exp", "log", "sqrt", "rsqrt", "square", "tanh", "relu", "sigmoid", "silu", "gelu",
    "gelu_tanh", "softplus",
})  # fmt: skip
BINARY = frozenset({
    "add", "sub", "mul", "div", "min", "max", "pow", "eq", "ne", "lt", "le", "gt", "ge", "and", "or",
})  # fmt: skip


@dataclass
class Row:
    """Lowers nodes at the current insertion point.

    `x` is this token's row, as stored; `leaf(node)` gives the value of a parameter or an input as stored.  `round_to`
    is the dtype that activations are rounded to before a linear (f32: they are left alone); what the linears in `int8`
    multiply becomes int8 then.
    """

    x: ir.Value
    leaf: Callable[[Node], ir.Value]
    round_to: DType
    context: ir.Context
    int8: frozenset[str] = frozenset()
    stored: dict[Node, ir.Value] = field(default_factory=dict)
    values: dict[Node, ir.Value] = field(default_factory=dict)
    rounded: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def lower(self, outputs: Iterable[Node]) -> None:
        """Emit everything that the outputs need, each node once and operands first."""
        stack = list(outputs)[::-1]
        while stack:
            node = stack[-1]
            missing = [one for one in self._needs(node) if one not in self.values]
            if node in self.values or not missing:
                stack.pop()
                if node not in self.values:
                    with emit.location(node.span, self.context):
                        self.values[node] = self._value(node)
            else:
                stack.extend(reversed(missing))

    def _needs(self, node: Node) -> tuple[Node, ...]:
        """The operands that are read in f32, i32 or i1; the others are read as stored."""
        match node.op:
            case "linear":
                vector, _, *bias = node.operands
                return tuple(bias) if vector.op == "x" else (vector, *bias)
            case "index" | "index_input" if node.operands[0].op == "parameter":
                return node.operands[1:]
            case _ if node.op in BINARY or node.op == "where":
                return tuple(one for one in node.operands if one.op != "constant")
        return node.operands

    def _as_stored(self, node: Node) -> ir.Value:
        if node not in self.stored:
            self.stored[node] = self.x if node.op == "x" else self.leaf(node)
        return self.stored[node]

    def _value(self, node: Node) -> ir.Value:
        """The value in f32, i32 or i1."""
        op, args = node.op, [self.values[one] for one in self._needs(node)]
        shape = node.type.shape
        if op in BINARY:
            return formulas.binary(op, *self._stretched(node))
        if op in UNARY:
            return formulas.unary(op, args[0])
        match op:
            case "x" | "parameter" | "input":
                stored = self._as_stored(node)
                is_float = isinstance(node.type, TensorType) and node.type.element == "f32"
                return emit.cast(stored, "f32") if is_float else stored
            case "constant":
                return _splat(node, ())
            case "linear":
                return self._linear(node)
            case "where":
                return arith.select(*self._stretched(node))
            case "reshape":
                return emit.reshape(args[0], shape)
            case "concat":
                return tensor.concat(emit.tensor_type(shape, "f32"), len(shape) - 1, args)
            case "index":
                return self._slice(node.operands[0], shape, int(node.attributes[0]))
            case "index_input":
                at = arith.index_cast(ir.IndexType.get(), tensor.extract(args[-1], []))
                return self._slice(node.operands[0], shape, at)
            case "softmax":
                return self._softmax(args[0], self._occupied(args))
            case "sum" | "mean" | "max_of" | "min_of" | "norm":
                return self._reduce(op, args[0], self._occupied(args))
        return self._pick(node, args)

    def _stretched(self, node: Node) -> list[ir.Value]:
        """The operands of an elementwise operation in the shape of its result."""
        shape = node.type.shape
        return [
            _splat(one, shape) if one.op == "constant" else emit.broadcast(self.values[one], shape)
            for one in node.operands
        ]

    def _linear(self, node: Node) -> ir.Value:
        vector, matrix, *bias = node.operands
        if vector.op == "x":
            operand = self._as_stored(vector)
        else:
            operand = emit.cast(self.values[vector], self.round_to.value)
        if matrix.attributes[0] in self.int8:
            operand = self._int8(operand)
        made = emit.matvec(self._as_stored(matrix), operand)
        return arith.addf(made, self.values[bias[0]]) if bias else made

    def _int8(self, row: ir.Value) -> ir.Value:
        """The row rounded to int8, once."""
        if row not in self.rounded:
            self.rounded[row] = QuantizeRowOp(row, out=emit.tensor_type(emit.shape_of(row), "f32")).out
        return self.rounded[row]

    def _slice(self, base: Node, shape: emit.Shape, at: int | ir.Value) -> ir.Value:
        """base[at] on the first axis; of a parameter only the slice is converted."""
        whole = self._as_stored(base) if base.op == "parameter" else self.values[base]
        element = emit.element_of(whole)
        type_ = ir.RankedTensorType.get(list(shape), element)
        offsets = [] if isinstance(at, int) else [at]
        first = at if isinstance(at, int) else ir.ShapedType.get_dynamic_size()
        rest = [0] * len(shape)
        cut = tensor.ExtractSliceOp(
            type_, whole, offsets, [], [], [first, *rest], [1, *shape], [1] * (len(shape) + 1)
        ).result
        return emit.cast(cut, "f32") if str(element) in ("bf16", "f16") else cut

    # along the last axis

    def _occupied(self, args: list[ir.Value]) -> ir.Value | None:
        """The mask of the slots that count, stretched over the values; None where all do."""
        if len(args) < 2:
            return None
        index = args[1]
        mask = arith.cmpi(5, index, emit.splat(0, emit.shape_of(index), "i32"))
        return emit.broadcast(mask, emit.shape_of(args[0]))

    def _masked(self, value: ir.Value, mask: ir.Value | None, neutral: float) -> ir.Value:
        if mask is None:
            return value
        return arith.select(mask, value, emit.splat(neutral, emit.shape_of(value)))

    def _reduce(self, op: str, value: ir.Value, mask: ir.Value | None) -> ir.Value:
        if op in ("max_of", "min_of"):
            kind, neutral = ("max", float("-inf")) if op == "max_of" else ("min", float("inf"))
            return emit.reduce(self._masked(value, mask, neutral), kind)
        value = self._masked(value, mask, 0.0)
        if op == "norm":
            return formulas.unary("sqrt", emit.reduce(arith.mulf(value, value), "add"))
        total = emit.reduce(value, "add")
        if op == "sum":
            return total
        shape = emit.shape_of(value)
        if mask is None:
            return arith.divf(total, emit.splat(shape[-1], shape[:-1]))
        ones = self._masked(emit.splat(1.0, shape), mask, 0.0)
        return arith.divf(total, emit.reduce(ones, "add"))

    def _softmax(self, value: ir.Value, mask: ir.Value | None) -> ir.Value:
        shape = emit.shape_of(value)

        def stretched(one: ir.Value) -> ir.Value:
            column = emit.reshape(one, (*shape[:-1], 1)) if shape[:-1] else one
            return emit.broadcast(column, shape)

        largest = emit.reduce(self._masked(value, mask, float("-inf")), "max")
        power = formulas.unary("exp", arith.subf(value, stretched(largest)))
        power = self._masked(power, mask, 0.0)
        return arith.divf(power, stretched(emit.reduce(power, "add")))

    # picks

    def _pick(self, node: Node, args: list[ir.Value]) -> ir.Value:
        type_ = node.type
        index = emit.tensor_type(type_.shape, "i32")
        i64 = ir.IntegerType.get_signless(64)
        match node.op:
            case "top_k":
                return TopKOp(args[0], ir.IntegerAttr.get(i64, int(node.attributes[0])), index).index
            case "top_p":
                mass, most = node.attributes
                f64 = ir.FloatAttr.get(ir.F64Type.get(), float(mass))
                return TopPOp(args[0], f64, ir.IntegerAttr.get(i64, int(most)), index).index
            case "take":
                element = emit.element_of(args[0])
                return TakeOp(*args, ir.RankedTensorType.get(list(type_.shape), element)).out
            case "chosen":
                return ChosenOp(args[0], emit.tensor_type(type_.shape, "bool")).mask
            case "choose":
                assert isinstance(type_, PickType)
                numbers = emit.reshape(args[0], type_.shape)
                low = arith.cmpi(5, numbers, emit.splat(0, type_.shape, "i32"))
                high = arith.cmpi(2, numbers, emit.splat(type_.over, type_.shape, "i32"))
                return self._where_valid(arith.andi(low, high), numbers)
            case "below":
                limit = emit.splat(int(node.attributes[0]), type_.shape, "i32")
                return self._where_valid(arith.cmpi(2, args[0], limit), args[0])
            case "merge_pick":
                return self._merge(node, args[0])
        raise ValueError(f"no lowering for {node.op}")

    def _where_valid(self, mask: ir.Value, index: ir.Value) -> ir.Value:
        return arith.select(mask, index, emit.splat(-1, emit.shape_of(index), "i32"))

    def _merge(self, node: Node, index: ir.Value) -> ir.Value:
        (picked,) = node.operands
        assert isinstance(picked.type, PickType)
        groups, slots = picked.type.shape
        firsts = [group * picked.type.over for group in range(groups) for _ in range(slots)]
        moved = arith.addi(index, emit.integers(firsts, (groups, slots)))
        if picked.type.may_be_empty:
            occupied = arith.cmpi(5, index, emit.splat(0, (groups, slots), "i32"))
            moved = self._where_valid(occupied, moved)
        return emit.reshape(moved, (groups * slots,))


def _splat(constant: Node, shape: emit.Shape) -> ir.Value:
    """A constant node in this shape."""
    (number,) = constant.attributes
    assert isinstance(constant.type, TensorType)
    assert not isinstance(number, str)
    return emit.splat(number, shape, constant.type.element)
