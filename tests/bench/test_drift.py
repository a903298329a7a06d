"""Traffic that drifts is what it says it is, and the padded layer computes what a capacity layer does."""

from __future__ import annotations

import math
from array import array
from pathlib import Path

import pytest
import torch

from bench.drift.capacity import EXPERTS, Padded, Weights
from bench.drift.traffic import Phase, Router, Traffic, order
from bench.soak.callers import Window
from bench.soak.layers import FORCED, SERVICE, Soaked
from bench.soak.report import Footprint, Happened, Report
from moec import frontend

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


def window(**seconds: list[float]) -> Window:
    """Of calls of so many tokens each: t1=[...]."""
    made = Window(layer=None, phase=0, seed=0, length=1.0, lead=0.0)  # type: ignore[arg-type]
    made.seconds = {int(name[1:]): array("d", found) for name, found in seconds.items()}
    made.calls = sum(map(len, made.seconds.values()))
    return made


def test_a_report_compares_windows() -> None:
    report = Report()
    report.add("on", window(t1=[2e-3] * 9))
    report.add("off", window(t1=[1e-3] * 10, t16=[1.0]))
    assert report.counts("on") == {1: 9}
    assert report.ratios() == {1: pytest.approx([2.0, 2.0, 2.0])}
    assert report.paired() == {1: [None, None, None]}, "too few calls to tell"
    report.add("on", window(t1=[4e-3] * 20))
    report.add("off", window(t1=[1e-3] * 1000))
    report.add("on", window(t1=[1e-3] * 20))
    report.add("off", window(t1=[1e-3] * 1000))
    (found,) = report.paired().values()
    assert (found[0].mean, found[0].error, found[0].pairs) == (pytest.approx(2.0), pytest.approx(math.log(2)), 2)
    assert found[1] is None, "of 20 calls none lies beyond p99"
    calls = report.paired_calls()
    assert calls.mean == pytest.approx((9 / 11 * 20 / 1000 * 20 / 1000) ** (1 / 3))
    report.footprints = [Footprint(resident, 3, 2, 1) for resident in (90, 10, 12, 11, 15, 9)]
    assert report.growth() == Footprint(15 - 12, 0, 0, 0)


def test_a_report_counts_what_stayed() -> None:
    report = Report()
    report.happened = [
        Happened(0, 1.0, "swap", "a", None, 1),
        Happened(0, 2.0, "keep", "a", "measured 1.2x", 0),
        Happened(1, 1.0, "keep", None, "nothing suits better", 0),
        Happened(1, 2.0, "swap", "b", None, 2),
    ]
    assert report.events == {"swap": 2, "stayed": 1, "keep": 1}
    assert report.variants == 2


@pytest.mark.parametrize("soaked", [FORCED, *SERVICE.values()])
def test_soaked_layers_can_be_checked(soaked: Soaked, tmp_path: Path) -> None:
    """Each has a policy that may change what it says, and results that are told from wrong ones."""
    path = tmp_path / "soak.moe"
    path.write_text(soaked.source)
    layer = frontend.load_layer(path)
    assert not layer.warnings
    assert len(soaked.drift()) == 4
    shifts = {phase.shift for phase in soaked.drift()}
    assert all(0 <= shift < soaked.experts for shift in shifts)
    assert soaked.largest_error == 0 or "approx" in soaked.allowed
