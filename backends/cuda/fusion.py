"""What routes are done together with: the matmul of their logits, and the plan of what they choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch_mlir import ir

from moec.backends.cuda import expressions
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.planned import counted_slots
from moec.backends.cuda.rowkernel import print_program
from moec.backends.cuda.rowvalues import Memory

DECODE = 64
"""Calls of at most so many tokens have one kernel for the route and the plan."""
FEW = 2048
"""Calls of fewer tokens have kernels of their own for the logits."""
MANY = 16384
TILES = {FEW: 64, MANY: 128}
"""From so many tokens on, logits of so many rows are made at a time."""
WARPS = 8
"""Of a block that makes logits."""


@dataclass(frozen=True)
class Fused:
    """A route with the matmul of its logits."""

    route: ir.Operation
    matmul: ir.Operation
    columns: int
    inner: int

    @property
    def logits(self) -> ir.Value:
        return self.matmul.results[0]

    def given(self) -> dict[ir.Value, Memory]:
        """The logits of row `row` of a tile, where they are in shared memory."""
        return {self.logits: Memory((self.columns,), "f32", lambda i: f"(float)logits[row * Tile::pitch + {i}]")}

    def shared_bytes(self, rows: int) -> int:
        """Of a tile of logits, as `LogitTile` has it in `moec/logits.cuh`."""
        across = 8 * 32 // rows
        padded = -(-self.columns // (16 * across)) * 16 * across
        return max(2 * (rows + 3 * padded) * 80, rows * (padded + 4) * 4)


def fused(route: ir.Operation, arch: Arch) -> Fused | None:
    """What a `moe.route` is fused with for many tokens: a product of bf16 or f16 rows and f32
    weights, at most 256 columns.

    None where there is no such product, or where a block has no room for it.
    """
    (x,) = route.operands
    reads = [op.operation for op in route.regions[0].blocks[0].operations if op.operation.name == "moe.row"]
    made = [read.operands[0].owner for read in reads]
    products = [o.operation for o in made if not isinstance(o, ir.Block) and o.operation.name == "moe.matmul"]
    if not products:
        return None
    matmul = products[0]
    view: Any = matmul.opview
    (columns, inner) = ir.RankedTensorType(view.weights[0].type).shape[1:]
    body = list(matmul.regions[0].blocks[0].operations)
    found = Fused(route, matmul, columns, inner)
    if (
        view.lhs != x
        or len(view.weights) != 1
        or view.transposed
        or len(body) != 1
        or len(matmul.results) != 1
        or expressions.element_of(x.type) not in ("bf16", "f16")
        or expressions.element_of(view.weights[0].type) != "f32"
        or inner % 8
        or columns > 256
    ):
        return None
    scratch = print_program(route, "", [x], given=found.given()).scratch
    slots = counted_slots(route.results[0])
    beside = WARPS * scratch + 4 * (slots.experts if slots is not None else 0)
    return found if max(map(found.shared_bytes, TILES.values())) + beside <= arch.shared_bytes else None


def planned_together(plan: ir.Operation) -> ir.Operation | None:
    """The route whose kernel for few tokens also makes a plan; None where the plan is made by itself."""
    owner = plan.operands[0].owner
    if isinstance(owner, ir.Block) or owner.operation.name != "moe.route":
        return None
    route = owner.operation
    return route if plan_of(route) == plan else None


def plan_of(route: ir.Operation) -> ir.Operation | None:
    """The first plan of what a route chooses."""
    users = [use.owner.operation for use in route.results[0].uses]
    plans = [user for user in users if user.name == "moe.plan"]
    return plans[-1] if plans else None
