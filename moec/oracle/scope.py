"""The state of the oracle while it runs: values, and what a region knows about the rows it runs on.

Values inside a region carry one leading batch axis more than their type says (the rows at hand); captured values
and constants carry none.  `Scope.lift` tells the two apart.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray
from torch_mlir import ir

Array = NDArray[Any]
Meaning = Callable[[ir.Operation, list[Array], "Scope"], list[Array]]

TERMINATORS = ("func.return", "moe.yield", "moe.yield_choice", "linalg.yield")


class CannotInterpret(NotImplementedError):
    """The module holds an operation that the oracle has no meaning for."""


@dataclass(frozen=True)
class Scope:
    """Values by SSA name, and the tokens, flat slots, plan rows and expert of the batch of rows at hand."""

    meaning: Mapping[str, Meaning]
    values: dict[ir.Value, Array] = field(default_factory=dict)
    tokens: Array | None = None
    slots: Array | None = None
    rows: Array | None = None
    expert: int | None = None

    def run(self, block: ir.Block, arguments: list[Array], **known: Any) -> list[Array]:
        """Run a block in a scope within this one; returns what its terminator yields."""
        inner = replace(self, values=dict(self.values), **known)
        inner.values.update(zip(block.arguments, arguments, strict=True))
        for op in block.operations:
            operation = op.operation
            inputs = [inner.values[v] for v in operation.operands]
            if operation.name in TERMINATORS:
                return inputs
            if operation.name not in self.meaning:
                raise CannotInterpret(f"the oracle has no meaning for {operation.name} at {operation.location}")
            results = self.meaning[operation.name](operation, inputs, inner)
            inner.values.update(zip(operation.results, results, strict=True))
        return []

    def lift(self, value: ir.Value) -> int:
        """How many batch axes the array of `value` has beyond its type (0 or 1)."""
        type_ = value.type
        return int(self.values[value].ndim - (type_.rank if isinstance(type_, ir.ShapedType) else 0))


def integer(op: ir.Operation, name: str) -> int:
    return int(ir.IntegerAttr(op.attributes[name]).value)


def element_type(type_: ir.Type) -> ir.Type:
    return type_.element_type if isinstance(type_, ir.ShapedType) else type_


def terminator(region: ir.Region) -> ir.Operation:
    return list(region.blocks[0].operations)[-1].operation
