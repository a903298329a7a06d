"""Faults planted in kernels (those of the ring of stages: test_ring.py): what a GPU would punish now and then is found
each time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch_mlir import ir

from moec.backends.cuda.arch import ARCHITECTURES, Arch
from moec.backends.cuda.kernel import Kernel, Scope
from moec.backends.cuda.matmul import emit
from tests.backends.cuda.products import Emitted, Product, inputs
from tests.backends.cuda.simulator import Fault, SimulatorError

# more steps than stages, in more parts than one for a block
SMALL = Product(inner=456, columns=8, experts=4, per_token=2, out="f32")
WARPGROUPS, WARPS = "moec/matmul/warpgroups.cuh", "moec/matmul/warps.cuh"

FAULTS = {
    "a stage given back too early": (
        Fault(WARPGROUPS, "        wgmma_wait<1>(sums);\n", ""),
        "is read by products of warpgroup",
    ),
    "fewer bytes expected than come": (
        Fault(WARPGROUPS, "ring.full_of(), Tile::rhs_bytes)", "ring.full_of(), Tile::rhs_bytes / 2)"),
        "deadlock",
    ),
    "registers not given to the products": (
        Fault(WARPGROUPS, "      wgmma_fence();\n", ""),
        "no wgmma_fence since registers were last touched",
    ),
    "sums read while products are under way": (
        Fault(WARPGROUPS, "    wgmma_wait<0>(sums);\n    ring", "    ring"),
        "is read by products of warpgroup",
    ),
    "a stage written while others multiply it": (
        Fault(WARPS, "      sync_block();\n      loader", "      loader"),
        "nothing orders the two|is still being copied|nothing was written there",
    ),
    "a stage multiplied before it has come": (
        Fault(WARPS, "copies_wait<Tile::stages - 2>", "copies_wait<Tile::stages - 1>"),
        "is still being copied",
    ),
}  # fmt: skip


def _many(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    return (replace(emit.matmul(op, scope, arch)[1], tokens=(0, None)),)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    fault, found = FAULTS[name]
    arch = ARCHITECTURES["sm_90a" if fault.header == WARPGROUPS else "sm_80"]
    given = inputs(SMALL, 300, "even")
    wrong = Emitted(SMALL, arch, _many, fault)
    with pytest.raises(SimulatorError, match=found):
        wrong.run(given)
