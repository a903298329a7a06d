"""What the backward function is built with: forward values that it can have again, and gradients collected so far."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch_mlir import ir
from torch_mlir.dialects import tensor

from moec.dialect import MapOp, RowOp
from moec.passes.gradients.formulas import add, rounded, widened
from moec.passes.gradients.refusal import no_gradient
from moec.passes.rewriting import clone, defining, dims, element_type, walk, yield_value

DYNAMIC = ir.ShapedType.get_dynamic_size


@dataclass(frozen=True)
class Saved:
    """A tensor that forward hands to backward: a value of it, or the accumulator of one of its matmuls, rounded."""

    name: str
    value: ir.Value
    accumulator: int | None = None


@dataclass
class Tape:
    """State while the backward of `forward` (a function at kernel level) is emitted at the end of `block`.

    Values of `forward` are called old here.  `known` maps old values to those of backward.
    """

    forward: ir.Operation
    block: ir.Block
    known: dict[ir.Value, ir.Value]
    prologue: ir.Operation
    saved: list[Saved] = field(default_factory=list)
    gradients: dict[ir.Value, list[ir.Value]] = field(default_factory=dict)
    active: set[ir.Value] = field(default_factory=set)
    names: Callable[[ir.Value, int | None], str] = lambda value, accumulator: "saved"
    _accumulators: dict[tuple[ir.Value, int], ir.Value] = field(default_factory=dict)

    def recall(self, old: ir.Value) -> ir.Value:
        """An old value in backward: computed anew where that costs next to nothing, saved by forward elsewhere."""
        if old not in self.known:
            op = defining(old)
            if op is not None and _is_cheap(op):
                for operand in (operand for one in within(op) for operand in one.operands):
                    if operand.owner == op.block or _is_before(operand, op):
                        self.recall(operand)
                with ir.InsertionPoint(self.prologue), op.location:
                    clone(op, self.known)
            else:
                self.known[old] = self._save(old, None, old.type)
        return self.known[old]

    def recall_accumulator(self, matmul: ir.OpView, number: int) -> ir.Value:
        """What accumulator `number` of a matmul was, in the type of its result."""
        result = matmul.operation.results[0]
        region = matmul.epilogue.blocks[0]
        if list(region.operations)[-1].operation.operands[0] == region.arguments[number]:
            return self.recall(result)
        key = (result, number)
        if key not in self._accumulators:
            self._accumulators[key] = self._save(result, number, result.type)
        return self._accumulators[key]

    def _save(self, old: ir.Value, accumulator: int | None, type_: ir.Type) -> ir.Value:
        self.saved.append(Saved(self.names(old, accumulator), old, accumulator))
        return self.block.add_argument(type_, ir.Location.unknown())

    @contextmanager
    def emitting(self, op: ir.Operation) -> Iterator[None]:
        """At the end of backward, in the name of an old operation."""
        with ir.InsertionPoint(self.block), op.location:
            yield

    def contribute(self, old: ir.Value, d: ir.Value) -> None:
        """Add to the gradient of an old value.  That of a reshaped parameter goes on to the parameter."""
        op = defining(old)
        if op is not None and op.name == "tensor.expand_shape":
            before = op.operands[0]
            groups = [[ir.IntegerAttr(i).value for i in ir.ArrayAttr(g)] for g in op.attributes["reassociation"]]
            type_ = ir.RankedTensorType.get(dims(before), element_type(d))
            self.contribute(before, tensor.collapse_shape(type_, d, groups))
        elif op is not None and op.name.startswith("tensor."):
            raise no_gradient(op, "of a parameter that is cut or joined")
        else:
            self.gradients.setdefault(old, []).append(d)

    def total(self, old: ir.Value) -> ir.Value | None:
        """The gradient of an old tensor of rows (or tokens); None: zero.  Later contributions would be lost."""
        parts = self.gradients.pop(old, [])
        if len(parts) < 2:
            return parts[0] if parts else None
        return add_rows(parts, ir.F32Type.get())


def add_rows(parts: list[ir.Value], element: ir.Type) -> ir.Value:
    """The sum of tensors of one shape, row by row."""
    shape = dims(parts[0])
    made = MapOp(parts[0], ir.RankedTensorType.get(shape, element))
    with ir.InsertionPoint(made.body.blocks.append()):
        total: ir.Value | None = None
        for part in parts:
            total = add(total, widened(row(part)))
        assert total is not None
        yield_value(rounded(total, element))
    return made.out


def within(op: ir.Operation) -> list[ir.Operation]:
    """An operation and those in its regions."""
    return [op, *(inner for region in op.regions for block in region.blocks for inner in walk(block))]


def _is_before(value: ir.Value, op: ir.Operation) -> bool:
    """Whether a value is the result of an operation beside `op`."""
    return not isinstance(value, ir.BlockArgument) and bool(value.owner.operation.block == op.block)


def row(whole: ir.Value) -> ir.Value:
    """A row of a tensor, in a map."""
    return RowOp(whole, ir.RankedTensorType.get(dims(whole)[1:], element_type(whole))).row


def trainable(function: ir.Operation) -> dict[ir.Value, str]:
    """The arguments that gradients are computed for, with their names: inputs and parameters of floats."""
    found = {}
    arguments = function.regions[0].blocks[0].arguments
    for value, attributes in zip(arguments, function.attributes["arg_attrs"], strict=True):
        floating = isinstance(element_type(value), ir.F32Type | ir.BF16Type | ir.F16Type)
        if floating and ir.StringAttr(attributes["moe.role"]).value in ("input", "parameter"):
            found[value] = str(ir.StringAttr(attributes["moe.name"]).value)
    return found


def _is_cheap(op: ir.Operation) -> bool:
    if op.name in ("arith.constant", "moe.plan", "moe.take_rows") or op.name.startswith("tensor."):
        return True
    return op.name == "moe.route" and _is_constant(op)


def _is_constant(route: ir.Operation) -> bool:
    """Whether every token chooses the same experts."""
    block = route.regions[0].blocks[0]
    reads = any(op.name == "moe.row" for op in walk(block))
    return not reads and not any(True for _ in block.arguments[0].uses)
