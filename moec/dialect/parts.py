"""Which of its plan's experts a product has."""

from torch_mlir import ir

PART = "part"


def part_of(product: ir.Operation) -> tuple[int, ...] | None:
    """The numbers of the plan's experts whose weights a grouped matmul has; None: all."""
    return tuple(ir.DenseI32ArrayAttr(product.attributes[PART])) if PART in product.attributes else None
