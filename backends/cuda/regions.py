"""Regions of scalars (epilogues of matmuls, finishes of sums) as C++ device functions."""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cuda import expressions

ROW, SCALAR, TOKEN, TOKEN_SCALAR, SLOT, COLUMN, EXPERT = (
    "row", "scalar", "token", "token_scalar", "slot", "column", "expert",
)  # fmt: skip


RESHAPES = ("tensor.expand_shape", "tensor.collapse_shape")
_APPROXIMATE = {"math.exp": "moec::approximate_exp", "arith.divf": "moec::approximate_quotient"}


@dataclass(frozen=True)
class Element:
    """An element of another tensor that a region reads, as `moe.element` does.

    tensor   what it is read from, row-major in memory
    kind     of `moe.element`
    dtype    element type: `f32`
    columns  how many elements a row of the tensor has
    """

    tensor: ir.Value
    kind: str
    dtype: str
    columns: int

    @property
    def memory(self) -> str:
        """The C++ type of the tensor's elements in memory."""
        return expressions.MEMORY[self.dtype]

    @property
    def varies_by_column(self) -> bool:
        return self.kind in (ROW, TOKEN, COLUMN)

    @property
    def of_experts(self) -> bool:
        """Whether rows of the tensor are those of experts."""
        return self.kind in (COLUMN, EXPERT)

    def place(self, *, row: str, token: str, slot: str, expert: str, column: str) -> str:
        """The C++ expression of the element's number in the tensor; the names are integers.

        row: in plan order (of tokens, where a matmul is dense).  slot: flat, token * K + j.
        """
        line = {ROW: row, SCALAR: row, TOKEN: token, TOKEN_SCALAR: token, SLOT: slot, COLUMN: expert, EXPERT: expert}
        first = line[self.kind]
        return f"(moec::i64){first} * {self.columns} + {column}" if self.varies_by_column else first


@dataclass(frozen=True)
class ScalarFunction:
    """`void NAME(float a0, ..., float e0, ..., float (&out)[n])`: a region for one element.

    source     definition, for after the headers `moec/scalar.cuh`
    arguments  how many arguments the region has itself; all are f32
    elements   what `e0`, ... are; integers are `int`
    results    element types of what is yielded.  `out[i]` is to be rounded to `results[i]` when it is stored.
    """

    name: str
    source: str
    arguments: int
    elements: tuple[Element, ...]
    results: tuple[str, ...]


def scalar_function(region: ir.Region, name: str, approximate: bool = False) -> ScalarFunction:
    """The device function of an `epilogue` or `finish` region.  Raises Unsupported for what it cannot print.

    approximate  if all results are rounded to 16 bits, exponentials and quotients are the device's own approximations
    """
    block = region.blocks[0]
    names = {argument: f"a{n}" for n, argument in enumerate(block.arguments)}
    elements: dict[Element, str] = {}
    lines: list[str] = []
    *body, end = (op.operation for op in block.operations)
    approximate = approximate and all(expressions.element_of(v.type) in ("bf16", "f16") for v in end.operands)

    def named(value: ir.Value) -> str:
        if value in names:
            return names[value]
        owner = value.owner
        if isinstance(owner, ir.Block) or owner.operation.name != "arith.constant":
            raise unsupported("cuda", end, "its region reads a value from outside that is not a constant")
        return expressions.constant(owner)

    for op in body:
        (result,) = op.results
        if op.name == "arith.constant" or (op.name in RESHAPES and all(map(_is_element, result.uses))):
            continue
        if op.name == "moe.element":
            names[result] = elements.setdefault(_element(op), f"e{len(elements)}")
            continue
        if op.name == "arith.truncf" and _only_yielded(result, end):
            names[result] = named(op.operands[0])
            continue
        type_ = expressions.register_type(op, result.type)
        operands = [named(operand) for operand in op.operands]
        if approximate and op.name in _APPROXIMATE:
            text = f"{_APPROXIMATE[op.name]}({', '.join(operands)})"
        else:
            text = expressions.apply(op, operands)
        names[result] = f"v{len(lines)}"
        lines.append(f"  const {type_} {names[result]} = {text};")
    given = [f"float a{n}" for n in range(len(block.arguments))]
    given += [f"{expressions.REGISTER[e.dtype]} {called}" for e, called in elements.items()]
    results = tuple(expressions.element_of(v.type) for v in end.operands)
    lines += [f"  out[{n}] = {named(value)};" for n, value in enumerate(end.operands)]
    head = f"MOEC_DEVICE void {name}({', '.join([*given, f'float (&out)[{len(results)}]'])}) {{"
    return ScalarFunction(
        name, "\n".join([head, *lines, "}\n"]), len(block.arguments), tuple(elements), results
    )  # fmt: skip


def _is_element(use: ir.OpOperand) -> bool:
    return bool(use.owner.operation.name == "moe.element")


def _element(op: ir.Operation) -> Element:
    (tensor,) = op.operands
    expressions.memory_type(op, tensor.type)
    kind = ir.StringAttr(op.attributes["kind"]).value
    columns = ir.RankedTensorType(tensor.type).get_dim_size(1)
    # A parameter that is reshaped within the region lies as it does outside.
    while (
        not isinstance(tensor.owner, ir.Block)
        and tensor.owner.name in RESHAPES
        and tensor.owner.operation.block == op.block
    ):
        (tensor,) = tensor.owner.operands
    return Element(tensor, kind, expressions.element_of(tensor.type), columns)


def _only_yielded(value: ir.Value, end: ir.Operation) -> bool:
    """Storing the result rounds it: nothing else sees the value."""
    return all(use.owner.operation == end for use in value.uses)
