"""Faults planted in the kernels of routes, plans and sums: the simulator finds each."""

from __future__ import annotations

import pytest
import torch

from moec.backends.cuda import fusion, planned, route, sorting
from tests.backends.cpu import modules
from tests.backends.cpu.programs import softmax_top
from tests.backends.cuda.calls import Function
from tests.backends.cuda.simulator import Fault, Simulated, SimulatorError
from tests.backends.cuda.test_combine import distinct, given
from tests.backends.cuda.test_fused_route import routed
from tests.backends.cuda.test_plan import capacity, choices, plan

PLAN, LOGITS, CAPACITY, COMBINE = (f"moec/{name}.cuh" for name in ("plan", "logits", "capacity", "combine"))
RACE = "nothing orders the two|nothing was written there"
_FUSED = (64, 72, 3)
_EXPERTS = (16, 24, 3, 2, "f32")

FAULTS = {
    "places taken by two lanes": (
        Fault(
            PLAN, "      sync_warp();\n      if (expert >= 0 && before == 0)", "      if (expert >= 0 && before == 0)"
        ),
        lambda: (plan(9, 3), choices(9, 3, 90, 0)["random"]),
        RACE,
    ),
    "rows that are not waited for": (
        Fault(LOGITS, "    copies_wait<0>();\n", ""),
        lambda: (routed(*_FUSED), None),
        "is still being copied",
    ),
    "logits over parts that others still multiply": (
        Fault(LOGITS, "  }\n  sync_block();\n  const Shared<float> logits", "  }\n  const Shared<float> logits"),
        lambda: (routed(*_FUSED), None),
        RACE,
    ),
    "a digit before it is found": (
        Fault(CAPACITY, "      }\n      sync_block();\n      prefix", "      }\n      prefix"),
        lambda: (capacity(7, 3, "score"), choices(7, 3, 90, 0)["one has all"]),
        RACE,
    ),
    "rows before they are sorted": (
        Fault(COMBINE, "  sync_block();\n", ""),
        lambda: (modules.experts(*_EXPERTS), None),
        RACE,
    ),
}
QUICK = ("places taken by two lanes", "rows that are not waited for")


def call(text: str, index: torch.Tensor | None, fault: Fault) -> None:
    function = Function(text)
    function.simulated = Simulated(function.source, [kernel.name for kernel in function.kernels], fault)
    if text == routed(*_FUSED):
        function({"x": torch.randn(90, 72).bfloat16(), "w": torch.randn(64, 72)}, 90)
    elif index is None:
        function(given(_EXPERTS, distinct(3, 2, 9, 0), 0), 9)
    else:
        function({"index": index, "weight": torch.randn(index.shape)}, len(index))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels for many tokens run for few."""
    for module in (planned, route, sorting):
        monkeypatch.setattr(module, "BLOCKS", 2)
    for module in (route, sorting):
        monkeypatch.setattr(module, "FEW", 40)
        monkeypatch.setattr(module, "DECODE", 9)
    for module in (fusion, route):
        monkeypatch.setattr(module, "TILES", {40: 64, 200: 128})


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in FAULTS])
def test_a_planted_fault_is_found(name: str) -> None:
    fault, make, message = FAULTS[name]
    text, index = make()
    with pytest.raises(SimulatorError, match=message):
        call(text, index, fault)


BARRIER = "  moec::sync_warp();\n"


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_lanes_need_a_barrier_around_what_they_tell_each_other(missing: int) -> None:
    text = softmax_top(60, 4).replace(
        """      "moe.yield_choice"(%pick, %w)""",
        """      %twice = arith.addf %p, %p : tensor<60xf32>
      %more = "moe.take"(%twice, %pick) : (tensor<60xf32>, tensor<4xi32>) -> tensor<4xf32>
      %both = arith.addf %more, %w : tensor<4xf32>
      "moe.yield_choice"(%pick, %both)""",
    )
    function = Function(text)
    parts = function.source.split(BARRIER)
    assert len(parts) == 5
    parts[missing : missing + 2] = [parts[missing] + parts[missing + 1]]
    function.simulated = Simulated(BARRIER.join(parts), [kernel.name for kernel in function.kernels])
    given = {"x": torch.randn(3, 60)}
    if missing == 0:  # nothing was there before
        function(given, 3)
    else:
        with pytest.raises(SimulatorError, match=RACE):
            function(given, 3)
