"""Operations of the `moe` dialect for layers whose experts lie on several devices.

Rows travel in *pair order*: one row for each (token, slot) that an expert works on, in the order in which a device gets
them.  Both operations stand at graph level and at kernel level.
"""

from typing import Any

from torch_mlir.dialects.ext import Operand, Pure, Region, Result

from moec.dialect import exchange_checks as checks
from moec.dialect.moe import Moe


class TakeRowsOp(Moe.Operation, name="take_rows", traits=[Pure]):
    """out[p] = x[source[p, 0]]; zeros where the number is negative.

    x tensor<?xd>, source tensor<?x1xi32> of as many rows, result as x.  Kernels read the rows where they lie.  The
    gradient of x is left in the order of the result: whoever has it adds up what belongs to one row.
    """

    x: Operand[Any]
    source: Operand[Any]
    out: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.take_rows(self)


class CollectOp(Moe.Operation, name="collect", traits=[Pure]):
    """Adds up rows of pairs for each token, in ascending slot order from 0, and finishes the sum.

    rows tensor<?xKxNxf32> is a buffer of T*K rows, numbered flat; token t gets the sum over j of row places[t, j],
    where that is not negative (places tensor<?xKxi32>).  `finish` maps the f32 sum to the element of the result,
    tensor<?xN> (its `moe.element` kinds: token, token_scalar).
    """

    rows: Operand[Any]
    places: Operand[Any]
    out: Result[Any]
    finish: Region

    def verify_invariants(self) -> bool:
        return checks.collect(self)
