"""Kernel-level IR as it runs on a device, where each kernel costs a launch."""

from __future__ import annotations

from torch_mlir import ir

from moec.backends.cuda.added_together import add_up_together
from moec.backends.cuda.common_launches import share_launches
from moec.backends.cuda.dense import without_plans_of_all
from moec.backends.cuda.sharing import share_plans
from moec.dialect.functions import functions, is_plain


def with_fewer_launches(module: ir.Module) -> ir.Module:
    """A copy of a module whose layer has fewer plans and combinations; functions that train it are as they were."""
    copy = ir.Module.parse(module.operation.get_asm(enable_debug_info=True), module.context)
    for function in functions(copy):
        if not is_plain(function):
            block = function.regions[0].blocks[0]
            share_plans(block)
            without_plans_of_all(block)
            add_up_together(block)
            share_launches(block)
    return copy
