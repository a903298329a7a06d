"""Faults planted in the ring of stages, for each kernel that has one: what a GPU would punish now and then is found
each time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from torch_mlir import ir

from moec.backends.cuda.arch import ARCHITECTURES, Arch
from moec.backends.cuda.kernel import Kernel, Scope
from moec.backends.cuda.matmul import emit
from tests.backends.cuda.calls import Function
from tests.backends.cuda.products import Emitted, Product, error, inputs, sums
from tests.backends.cuda.simulator import Fault, SimulatorError
from tests.backends.cuda.test_weight_gradient import gradients, operands

RING = "moec/matmul/ring.cuh"
H100 = ARCHITECTURES["sm_90a"]

# more steps than stages, in more parts than one for a block
FLOATS = Product(inner=456, columns=8, experts=4, per_token=2, out="f32")
CODES = Product(inner=464, columns=24, experts=3, per_token=2, format="int8", out="f32")
GRADIENT = (4, 136, 72, 2, "bf16", "bf16")


def _many(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    return (replace(emit.matmul(op, scope, arch)[-1], tokens=(0, None)),)


def _product(product: Product) -> Callable[[Fault], float]:
    def run(fault: Fault) -> float:
        given = inputs(product, 300)
        return error(Emitted(product, H100, _many, fault).run(given), sums(product, given)[0])

    return run


def _gradient(fault: Fault) -> float:
    """Of 700 rows, all of one expert, in token order."""
    function, given = Function(gradients(*GRADIENT), "sm_90a", fault=fault), operands(*GRADIENT, 700, "one")
    c, b = (given[name].double().numpy() for name in "cb")
    return error(function(given, 700)["e"][0], c.T @ b)


USERS = {"floats": _product(FLOATS), "codes": _product(CODES), "gradients": _gradient}

FAULTS = {
    "copies are not waited for": (("copies_wait<lag>();\n      fence", "fence"), "is still being copied"),
    "the last copies are not waited for": (("copies_wait<0>();\n", ""), "is still being copied"),
    "no fence between copies of threads and products": (
        ("fence_async_proxy();\n      barrier_arrive(full", "barrier_arrive(full"),
        "wgmma at .* without a fence_async_proxy behind it",
    ),
    "the wrong phase of full stages": (
        ("barrier_wait(full(step), round())", "barrier_wait(full(step), round() ^ 1)"),
        "shared byte|is still being copied|was never written|deadlock",
    ),
    "the wrong phase of empty stages": (("round() ^ 1);", "round());"), "deadlock.*barrier_wait"),
    "a stage given back too early": (("empty(step - 1 - before)", "empty(step - before)"), "is read by|deadlock"),
    "stages given back by one warp": (
        ("barrier_init(empty(i), 8)", "barrier_init(empty(i), 1)"),
        "is read by|deadlock",
    ),
    "a ring too short for the lag": (("lag = stages - 2", "lag = stages - 1"), "deadlock"),
}  # fmt: skip


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(user: str, name: str) -> None:
    (right, wrong), found = FAULTS[name]
    with pytest.raises(SimulatorError, match=found):
        USERS[user](Fault(RING, right, wrong))


ROWS = {
    "rows that are not swizzled": (
        "swizzled((thread_index() >> 3) + i * 16, unit)",
        "((thread_index() >> 3) + i * 16) * 128 + unit * 16",
    ),
    "rows behind the part's last": ("row < part.count ? plan.source(part.first + row) : -1", "part.first"),
}


@pytest.mark.parametrize("user", ["floats", "codes"])
@pytest.mark.parametrize("name", ROWS)
def test_rows_of_other_places_give_other_numbers(user: str, name: str) -> None:
    assert not USERS[user](Fault(RING, *ROWS[name])) < 0.1
