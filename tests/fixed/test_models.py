"""The roofline, the predicted time and the memories of designs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moec.fixed.design import Memory, Order
from moec.fixed.model import cycles
from moec.fixed.model.blocks import blocks
from moec.fixed.model.kernel import excess, resources
from moec.fixed.model.search import bind
from moec.fixed.model.timing import predict
from moec.fixed.model.traffic import balance, even_counts, port_bytes, spread, stretch, visits
from moec.fixed.spec import Weights
from tests.fixed.samples import BOARD, DESIGN, EDGE


def test_slots_are_spread_evenly() -> None:
    for tokens in (0, 1, 3, 4, 197):
        counts = even_counts(EDGE, tokens)
        assert sum(counts) == tokens * 4
        assert max(counts) - min(counts) <= 1


def test_how_many_experts_chance_chooses() -> None:
    assert spread(EDGE, 0) == 0
    assert spread(EDGE, 1) == pytest.approx(4)
    assert spread(EDGE, 1000) == pytest.approx(16)


def test_weights_cross_once_an_expert_or_once_a_slot() -> None:
    assert visits(EDGE, 197, Order.EXPERT) == 16
    assert visits(EDGE, 197, Order.TOKEN) == 788
    assert visits(EDGE, 2, Order.EXPERT) == visits(EDGE, 2, Order.TOKEN) == 8


def test_the_balance_is_that_of_the_roofline() -> None:
    design = replace(DESIGN, tokens=128)  # 32 tokens an expert, 2 ports of 16 bytes
    assert balance(design) == 32 * 32 / 1
    assert balance(replace(design, layer=replace(EDGE, weights=Weights.TERNARY))) == 32 * 32 / 0.25
    assert balance(replace(design, ports=1)) == 32 * 16


def test_an_array_at_the_balance_waits_as_long_as_its_ports() -> None:
    design = replace(DESIGN, tokens=128, inputs=32, outputs=32)
    taken = predict(design, even_counts(design.layer, design.tokens))
    assert taken.loading == pytest.approx(taken.busy, rel=0.1)


def test_ports_give_no_more_than_the_memory() -> None:
    assert port_bytes(replace(DESIGN, ports=4)) == pytest.approx(17.07e9 / 300e6)
    assert stretch(replace(DESIGN, ports=4)) == pytest.approx(64 / 56.9)
    assert stretch(DESIGN) == 1


def test_without_a_slow_memory_a_prediction_is_the_tiles_cycles() -> None:
    counts = [40, 0, 3, *[7] * 12, 61]
    for order in Order:
        design = replace(DESIGN, order=order)
        assert predict(design, counts).latency == cycles.call(design, counts)


def test_a_slow_memory_makes_calls_longer() -> None:
    slow = replace(DESIGN, tokens=4, board=replace(BOARD, bandwidth=1e9))
    counts = even_counts(EDGE, 4)
    assert predict(slow, counts).seconds > 5 * predict(replace(DESIGN, tokens=4), counts).seconds
    assert predict(slow, counts).bound == "memory"


@pytest.mark.parametrize(
    ("memory", "width", "depth", "taken"),
    [
        (Memory.BRAM, 72, 512, 1),
        (Memory.BRAM, 36, 512, 0.5),
        (Memory.BRAM, 36, 1024, 1),
        (Memory.BRAM, 1, 32768, 1),
        (Memory.BRAM, 73, 512, 1.5),
        (Memory.URAM, 72, 4096, 1),
        (Memory.URAM, 73, 4097, 4),
        (Memory.LUTRAM, 8, 65, 24),
    ],
)
def test_blocks_of_memory(memory: Memory, width: int, depth: int, taken: float) -> None:
    made = blocks(memory, width, depth)
    assert {Memory.BRAM: made.bram, Memory.URAM: made.uram, Memory.LUTRAM: made.lut}[memory] == taken


def test_blocks_hold_what_is_put_into_them() -> None:
    for width in (1, 7, 26, 128, 1000):
        for depth in (1, 513, 5000):
            assert blocks(Memory.BRAM, width, depth).bram * 36 * 1024 >= width * depth
            assert blocks(Memory.URAM, width, depth).uram * 288 * 1024 >= width * depth


def test_what_does_not_fit_into_block_ram_goes_into_ultraram() -> None:
    small = replace(DESIGN, board=replace(BOARD, bram=100))
    assert excess(small)
    assert bind(small) is None
    bound = bind(replace(small, board=replace(small.board, uram=64)))
    assert bound is not None
    assert resources(bound).uram > 0
    assert not excess(bound)
