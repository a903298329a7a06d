"""Traffic that drifts is what it says it is, and the padded layer computes what a capacity layer does."""

from __future__ import annotations

from array import array

import pytest
import torch

from bench.drift.capacity import EXPERTS, Padded, Weights
from bench.drift.traffic import Phase, Router, Traffic, order
from bench.soak.report import Footprint, Report

PHASES = [Phase(1.5, 0, ((1, 0.5), (64, 0.5))), Phase(1.5, 6, ((64, 1.0),)), Phase(0.0, 0, ((64, 1.0),), hot=4)]


@pytest.fixture
def router() -> Router:
    weight = torch.randn(12, 32, generator=torch.Generator().manual_seed(1))
    return Router(weight, 2, order(12))


def test_the_same_seed_gives_the_same_traffic(router: Router) -> None:
    one, other = (Traffic(router, PHASES, torch.float32, seed=3) for _ in range(2))
    for phase in range(len(PHASES)):
        requests = zip(one.requests(phase, 5), other.requests(phase, 5), strict=True)
        for (a, b), _ in zip(requests, range(20), strict=False):
            assert (a.phase, a.tokens, a.number) == (b.phase, b.tokens, b.number)
            assert torch.equal(a.x, b.x)


def test_tokens_choose_as_a_phase_says(router: Router) -> None:
    traffic = Traffic(router, PHASES, torch.bfloat16, batches=40)
    shares = []
    for number, phase in enumerate(PHASES):
        picks = torch.cat([router.picks(request.x) for request in traffic.pool[number, 64]])
        shares.append(torch.bincount(picks.flatten(), minlength=12) / picks.numel())
        hottest = router.hot(phase, 1)[0]
        assert phase.exponent == 0 or shares[-1].argmax() == hottest
    assert router.hot(PHASES[0], 1) != router.hot(PHASES[1], 1)
    assert shares[2].count_nonzero() == 4
    assert shares[2][router.hot(PHASES[2], 4)].sum() == 1


@pytest.mark.parametrize("capacity", [1, 5, 40])
def test_the_padded_layer_drops_the_later_tokens(capacity: int) -> None:
    weights = Weights()
    x = torch.randn(40, weights.router.shape[1], generator=torch.Generator().manual_seed(2)).bfloat16()
    y = Padded(weights, capacity)(x).double()
    left = [capacity] * EXPERTS
    for token, got in zip(x, y, strict=True):
        p = torch.softmax(weights.router @ token.float(), -1)
        expert = int(p.argmax())
        left[expert] -= 1
        hidden = (weights.up[expert].double() @ token.double()).relu()
        wanted = p[expert].double() * (weights.down[expert].double() @ hidden)
        if left[expert] < 0:
            assert not got.any()
        else:
            torch.testing.assert_close(got, wanted, rtol=3e-2, atol=3e-2)


def test_a_report_compares_windows() -> None:
    report = Report()
    report.add("on", 0, {1: array("d", [2e-3] * 9)})
    report.add("on", 1, {1: array("d", [2e-3])})
    report.add("off", 0, {1: array("d", [1e-3] * 10), 16: array("d", [1.0])})
    assert report.counts("on") == {1: 10}
    assert report.ratios() == {1: pytest.approx([2.0, 2.0, 2.0])}
    assert report.noise() == {}
    report.add("off", 1, {1: array("d", [5e-4] * 10)})
    assert report.noise() == {1: pytest.approx([2.0, 2.0, 2.0])}
    report.footprints = [Footprint(resident, 3, 2, 1) for resident in (90, 10, 12, 11, 15, 9)]
    assert report.growth() == Footprint(15 - 12, 0, 0, 0)
