"""Which emitter makes the kernels of an operation; each is imported when it is asked for."""

from __future__ import annotations

import importlib

from moec.backends.cuda.kernel import Emitter

# operation -> module:function
EMITTERS: dict[str, str] = {
    "moe.capacity": "moec.backends.cuda.capacity:capacity",
    "moe.count": "moec.backends.cuda.plan:count",
    "moe.dense_group_sum": "moec.backends.cuda.sums:dense_group_sum",
    "moe.dense_weight_gradient": "moec.backends.cuda.matmul.gradient:weight_gradient",
    "moe.group_sum": "moec.backends.cuda.sums:group_sum",
    "moe.grouped_matmul": "moec.backends.cuda.matmul.joined:matmul",
    "moe.grouped_matmul_combine": "moec.backends.cuda.combine:grouped_matmul_combine",
    "moe.join_rows": "moec.backends.cuda.matmul.joined:join_rows",
    "moe.map": "moec.backends.cuda.rowkernel:map_rows",
    "moe.matmul": "moec.backends.cuda.route:matmul",
    "moe.plan": "moec.backends.cuda.plan:plan",
    "moe.quantize_rows": "moec.backends.cuda.rowcodes:quantize_rows",
    "moe.route": "moec.backends.cuda.route:route",
    "moe.row_values": "moec.backends.cuda.sums:row_values",
    "moe.slot_values": "moec.backends.cuda.sums:slot_values",
    "moe.sum_rows": "moec.backends.cuda.combine:sum_rows",
    "moe.weight_gradient": "moec.backends.cuda.matmul.gradient:weight_gradient",
}


def emitter(operation: str) -> Emitter | None:
    """The emitter of operations of this name; None where there is none."""
    if operation not in EMITTERS:
        return None
    module, _, attribute = EMITTERS[operation].partition(":")
    found: Emitter = getattr(importlib.import_module(module), attribute)
    return found
