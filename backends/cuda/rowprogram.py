"""Prints a row program (the region of moe.route or moe.map) for one token, as statements of a warp.

What a program computes for a token depends on nothing but the token: lanes take part in a fixed order.  An index that
lies outside of its table cannot stop the device; what it would have read is NaN, or -1, which is no expert.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cuda import expressions, rowchoice, rowgeneric, rowstructure
from moec.backends.cuda.rowstructure import shape_of
from moec.backends.cuda.rowvalues import UNROLLED, Code, Memory, Uniform, Value, count_of, registers

# Of what these take, few elements may be needed.
_READ_IN_PLACE = ("tensor.extract", "tensor.extract_slice", "tensor.expand_shape", "tensor.collapse_shape")
_NUMPY = {"f32": np.float32, "i32": np.int32, "i64": np.int64, "index": np.int64, "i1": np.bool_}


class Program:
    """One token's program.

    pointers   of the tensors that the region reads from outside: the C++ names
    given      this token's rows of tensors that lie elsewhere
    constants  definitions that are to stand before the kernel
    """

    def __init__(
        self,
        code: Code,
        pointers: Mapping[ir.Value, str],
        token: str,
        prefix: str,
        given: Mapping[ir.Value, Memory] | None = None,
    ) -> None:
        self.code = code
        self.pointers = pointers
        self.token = token
        self.prefix = prefix
        self.given = given or {}
        self.constants: list[str] = []
        self.values: dict[ir.Value, Value] = {}

    def run(self, block: ir.Block, *own: str) -> list[Value]:
        """What the block yields; `own` names the tensors whose rows are the block's arguments."""
        for argument, pointer in zip(block.arguments, own, strict=True):
            self.values[argument] = self._row_of(pointer, argument.type)
        *body, end = block.operations
        for op in body:
            self._step(op.operation)
        return [self._value(operand) for operand in end.operation.operands]

    # --- values

    def _value(self, value: ir.Value) -> Value:
        if value not in self.values:
            self.values[value] = self._outside(value)
        return self.values[value]

    def _outside(self, value: ir.Value) -> Value:
        if value in self.pointers:
            name = self.pointers[value]
            return Memory(shape_of(value), expressions.element_of(value.type), lambda i: f"moec::load({name} + {i})")
        if not isinstance(value.owner, ir.Block) and value.owner.operation.name == "arith.constant":
            return self._constant(value.owner.operation)
        raise unsupported("cuda", value.owner, "a row program can read parameters and constants from outside only")

    def _row_of(self, pointer: str, type_: ir.Type) -> Memory:
        """This token's row of a tensor in token order."""
        tensor = ir.RankedTensorType(type_)
        shape, element = tuple(tensor.shape), expressions.element_of(tensor)
        name = f"{pointer} + (moec::i64){self.token} * {count_of(shape)}"
        return Memory(shape, element, lambda i: f"moec::load({name} + {i})")

    def _constant(self, op: ir.Operation) -> Value:
        (result,) = op.results
        attribute, element = op.attributes["value"], expressions.element_of(result.type)
        if not isinstance(attribute, ir.DenseElementsAttr) or attribute.is_splat:
            return Uniform(shape_of(result), element, expressions.constant(op))
        if element not in _NUMPY:
            raise unsupported("cuda", op, f"a constant of {element} with several values")
        name = f"{self.prefix}_constant{len(self.constants)}"
        numbers: list[float | int] = np.array(ir.DenseElementsAttr(attribute)).astype(_NUMPY[element]).ravel().tolist()
        items = ", ".join(expressions.literal(op, number, element) for number in numbers)
        type_ = expressions.REGISTER[element]
        self.constants.append(f"MOEC_CONSTANT {type_} {name}[] = {{{items}}};\n")
        return Memory(shape_of(result), element, lambda i: f"{name}[{i}]")

    def _scalar(self, value: ir.Value) -> str:
        return self.code.element(self._value(value), "0", "0")

    # --- operations

    def _step(self, op: ir.Operation) -> None:
        if op.name == "linalg.generic":
            found = rowgeneric.generic(self.code, op, [self._value(v) for v in op.operands], self._scalar)
            self.values.update(zip(op.results, found, strict=True))
        elif op.name in _MEANING:
            self.values[op.results[0]] = _MEANING[op.name](self, op)
        elif op.name in expressions.OPERATIONS:
            self.values[op.results[0]] = self._elementwise(op)
        else:
            raise unsupported("cuda", op, "a row program cannot compute it")

    def _elementwise(self, op: ir.Operation) -> Value:
        (result,) = op.results
        shape, element = shape_of(result), expressions.element_of(result.type)
        expressions.register_type(op, result.type)
        operands = [self.code.lanes(self._value(operand)) for operand in op.operands]
        texts = [operand.text for operand in operands if isinstance(operand, Uniform)]
        if len(texts) == len(operands):
            return self.code.uniform(shape, element, expressions.apply(op, texts))

        def text(r: str, i: str) -> str:
            found = expressions.apply(op, [self.code.element(operand, r, i) for operand in operands])
            return self.code.inside(shape, i, f"({found})") if op.name in expressions.DIVISIONS else found

        return self.code.fill(shape, element, text)

    def _reshape(self, op: ir.Operation) -> Value:
        value, shape = self._value(op.operands[0]), shape_of(op.results[0])
        if isinstance(value, Memory):
            return Memory(shape, value.element, value.read)
        return type(value)(shape, value.element, value.text if isinstance(value, Uniform) else value.name)

    def _splat(self, op: ir.Operation) -> Value:
        (result,) = op.results
        return Uniform(shape_of(result), expressions.element_of(result.type), self._scalar(op.operands[0]))

    def _empty(self, op: ir.Operation) -> Value:
        (result,) = op.results
        return Uniform(shape_of(result), expressions.element_of(result.type), "0")

    def _token_row(self, op: ir.Operation) -> Value:
        (whole,) = op.operands
        (result,) = op.results
        row = self.given[whole] if whole in self.given else self._row_of(self.pointers[whole], result.type)
        if registers(row.shape) > UNROLLED or any(use.owner.operation.name in _READ_IN_PLACE for use in result.uses):
            return row
        return self.code.lanes(row)

    def _extract(self, op: ir.Operation) -> Value:
        source, *places = op.operands
        return rowstructure.extract(self.code, op, self._value(source), [self._scalar(place) for place in places])

    def _extract_slice(self, op: ir.Operation) -> Value:
        source, *places = op.operands
        return rowstructure.extract_slice(self.code, op, self._value(source), [self._scalar(p) for p in places])

    def _concat(self, op: ir.Operation) -> Value:
        return rowstructure.concat(self.code, op, [self._value(operand) for operand in op.operands])


def _on_values(emit: Callable[..., Value]) -> Callable[[Program, ir.Operation], Value]:
    """An operation whose operands are tensors."""
    return lambda program, op: emit(program.code, op, *(program._value(operand) for operand in op.operands))


_MEANING: dict[str, Callable[[Program, ir.Operation], Value]] = {
    "arith.constant": Program._constant,
    "tensor.empty": Program._empty,
    "tensor.splat": Program._splat,
    "tensor.expand_shape": Program._reshape,
    "tensor.collapse_shape": Program._reshape,
    "tensor.extract": Program._extract,
    "tensor.extract_slice": Program._extract_slice,
    "tensor.concat": Program._concat,
    "moe.row": Program._token_row,
    "moe.top_k": _on_values(rowchoice.top_k),
    "moe.top_p": _on_values(rowchoice.top_p),
    "moe.take": _on_values(rowchoice.take),
    "moe.chosen": _on_values(rowchoice.chosen),
    "moe.put": _on_values(rowchoice.put),
}
