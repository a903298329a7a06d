"""What the operations for layers whose experts lie on several devices compute."""

import numpy as np
from torch_mlir import ir

from moec.oracle.kernels import finished
from moec.oracle.scope import Array, Meaning, Scope


def _take_rows(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    x, source = inputs
    numbers = source[:, 0]
    out = np.zeros((len(numbers), x.shape[1]))
    out[numbers >= 0] = x[numbers[numbers >= 0]]
    return [out]


def _collect(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    rows, places = inputs
    flat = rows.reshape(-1, rows.shape[2])
    total = np.zeros((len(rows), rows.shape[2]))
    for slot in range(places.shape[1]):
        here = places[:, slot] >= 0
        total[here] += flat[places[here, slot]]
    return finished(op.regions[0], total, scope)


MEANING: dict[str, Meaning] = {
    "moe.take_rows": _take_rows,
    "moe.collect": _collect,
}
