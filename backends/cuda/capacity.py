"""moe.capacity: a slot's rank among those of its expert says whether it is kept."""

from __future__ import annotations

from typing import Any

from torch_mlir import ir

from moec.backends.cuda.arch import Arch
from moec.backends.cuda.kernel import BufferPointer, FixedGrid, Kernel, Scope, TensorPointer, Tokens
from moec.backends.cuda.plan import counting
from moec.backends.cuda.sorting import INCLUDES, Sort

_INCLUDES = (*INCLUDES, "moec/capacity.cuh")
_WARPS = 8


def capacity(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernels of a `moe.capacity`.

    In the order of tokens or of choices, sorting the slots by expert ranks them.  In that of scores, a block for each
    expert then finds out how large a weight must be.
    """
    view: Any = op.opview
    experts = int(ir.IntegerAttr(view.experts).value)
    order = ir.StringAttr(view.order).value
    per_token = int(ir.RankedTensorType(view.index.type).get_dim_size(1))
    limit = (
        f"const int limit = moec::capacity_limit({ir.FloatAttr(view.factor).value!r}, {experts}, "
        f"{ir.IntegerAttr(view.minimum).value}, tokens * {per_token});"
    )
    outputs, total = counting(op)
    outputs["kept"] = TensorPointer(view.kept, "int*")
    if order != "score":
        take = "kept[flat] = expert >= 0 && rank < limit ? expert : -1;"
        by_choice = order == "choice"
        return Sort(op, "capacity", view.index, experts, total, take, outputs, by_choice, limit, _INCLUDES).kernels(
            scope, arch
        )
    starts = scope.buffer(view.kept, "capacity starts", 0, 4 * (experts + 1))
    sorted_ = scope.buffer(view.kept, "capacity slots", 4 * per_token, 0)
    outputs |= {"starts": BufferPointer(starts, "int*"), "sorted": BufferPointer(sorted_, "int*")}
    total += f" starts[expert] = start; if (expert == {experts - 1}) starts[{experts}] = start + count;"
    take = "if (expert >= 0) sorted[place] = flat; else kept[flat] = -1;"
    sort = Sort(op, "capacity", view.index, experts, total, take, outputs)
    name = scope.name("capacity_score")
    source = "\n".join(
        [
            f"MOEC_KERNEL({32 * _WARPS}, 1) {name}(const int* MOEC_RESTRICT starts, const int* MOEC_RESTRICT sorted,",
            "    const float* MOEC_RESTRICT weight, int* MOEC_RESTRICT kept, int tokens) {",
            "  MOEC_SHARED(shared);",
            f"  {limit}",
            "  const int expert = moec::block_index();",
            "  const int first = starts[expert];",
            f"  moec::keep_largest<{_WARPS}>(",
            "      sorted + first, starts[expert + 1] - first, weight, limit, expert, kept, shared);",
            "}\n",
        ]
    )
    arguments = (
        BufferPointer(starts, "const int*"),
        BufferPointer(sorted_, "const int*"),
        TensorPointer(view.weight, "const float*"),
        outputs["kept"],
        Tokens(),
    )
    shared = 4 * (258 + _WARPS)
    score = Kernel(name, source, _INCLUDES, 32 * _WARPS, shared, FixedGrid(experts), arguments)
    return (*sort.kernels(scope, arch), score)
