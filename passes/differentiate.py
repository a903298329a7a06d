"""Differentiation: a layer gets a forward function that saves what a backward function needs."""

from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir

from moec.dialect.functions import BACKWARD, FORWARD, layer_function
from moec.passes.base import Pass, Remarks
from moec.passes.canonicalize import Canonicalize
from moec.passes.expand_experts import ExpandExperts
from moec.passes.fuse_permutation import FusePermutation
from moec.passes.fuse_shared_experts import FuseSharedExperts
from moec.passes.gradients.backward import build_backward
from moec.passes.gradients.forward import save
from moec.passes.gradients.hoist import hoist_rest
from moec.passes.hoist_router import HoistRouter
from moec.passes.interleave_weights import InterleaveWeights

TO_KERNELS = (
    Canonicalize(),
    FuseSharedExperts(join=False),
    ExpandExperts(),
    InterleaveWeights(),
    FusePermutation(),
    HoistRouter(),
)
"""How the layer gets to kernel level first.  Shared experts stay apart, so that parameters are used as they are."""


@dataclass(frozen=True)
class Differentiate(Pass):
    """Adds `L_forward` and `L_backward` beside the layer L, which is at graph level.

    Both are at kernel level and read parameters as ordinary tensors.  Experts' gradients are grouped matmuls whose
    epilogues go through the activations; what a router computes is differentiated as the program of a token, where the
    choice itself is a constant.
    """

    name: ClassVar[str] = "differentiate"

    def apply(self, module: ir.Module, remarks: Remarks) -> None:
        layer = layer_function(module)
        name = ir.StringAttr(layer.attributes["sym_name"]).value
        work = ir.Module.parse(module.operation.get_asm(enable_debug_info=True), module.context)
        for step in TO_KERNELS:
            step.apply(work, Remarks())
        forward = layer_function(work)
        hoist_rest(forward.regions[0].blocks[0])
        Canonicalize().apply(work, Remarks())
        with ir.InsertionPoint(work.body), layer.location:
            backward = build_backward(forward, name + BACKWARD)
        save(forward, backward.saved, name + FORWARD)
        Canonicalize().apply(work, Remarks())
        names = ", ".join(saved.name for saved in backward.saved)
        remarks.add(self, f"backward needs from forward: {names}", layer.location)
        for function in [op.operation for op in work.body.operations]:
            function.detach_from_parent()
            module.body.append(function)
