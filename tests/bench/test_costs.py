"""Costs are taken from a real layer; what they come to is no test."""

from __future__ import annotations

import json
from dataclasses import replace

from bench import costs
from bench.shapes import SHAPES


def test_costs_of_a_small_layer() -> None:
    small = replace(SHAPES["olmoe"], name="small", d=64, ff=32, defines=(("d", 64), ("ff", 32)))
    measured = costs.layer_costs(small, "f32", (1, 128), threads=2)
    assert measured.weight_bytes == 4 * (64 * 64 + 64 * 3 * 64 * 32)
    assert measured.packed_bytes >= measured.weight_bytes
    assert {"graph", "kernels", "artifact"} < set(measured.stages)
    assert set(measured.workspace) == {1, 128}
    assert costs.costs_table([measured]).row_count == 1
    assert json.loads(json.dumps(costs.costs_json([measured], {})))["layers"][0]["shape"] == "small"


def test_the_tiny_layer_can_be_called() -> None:
    assert set(costs.call_overhead()) == {"moec", "torch.nn.Linear"}
