"""Proof under fire: four threads call a layer that recompiles all the time while its compiler is killed.

No call fails, every result has the bits of the layer that was compiled ahead, there are never more variants than the
policy allows, and the process does not grow.  `SOAK_MINUTES` sets how long the slow one takes; `python -m bench.soak`
is the same with latencies compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.soak.layers import FORCED, SERVICE
from bench.soak.report import Footprint, Report
from bench.soak.soak import Soak
from moec.artifact.allowed import SIDE_BY_SIDE

TINY = replace(FORCED, d=256, ff=128, experts=16, top_k=2)
WINDOW = 5.0
MIB = 2**20


@pytest.fixture
def soak(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Soak]:
    soaked, ahead = request.param
    made = Soak(tmp_path, soaked, strike=4.0, ahead=ahead)
    yield made
    made.close()


def check(report: Report) -> None:
    assert report.faults == []
    assert min(map(sum, report.calls.values())) > 100
    assert report.variants <= TINY.most
    told = f"{report.events}, {report.strikes}"
    assert report.events["compile"], told
    assert report.events["compile"] >= report.events["swap"], told


@pytest.mark.timeout(900)
@pytest.mark.parametrize("soak", [(TINY, False)], indirect=True)
def test_some_seconds_of_a_tiny_layer(soak: Soak) -> None:
    for seconds in (WINDOW / 2, WINDOW, 2 * WINDOW, 6 * WINDOW):
        report = soak.run(pairs=2, seconds=seconds)
        if report.events["compile"]:  # on a busy machine it takes longer until compiling seems worth its time
            break
    check(report)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("soak", [(FORCED, True)], indirect=True)
def test_many_minutes(soak: Soak) -> None:
    """Where callers take all processors, compiling takes half a minute: some variants are there already, and come in
    nearly every window, others are compiled and seldom done before a strike."""
    minutes = float(os.environ.get("SOAK_MINUTES", "3"))
    report = soak.run(pairs=max(6, round(minutes * 60 / (2 * WINDOW))), seconds=WINDOW)
    check(report)
    assert report.events["swap"]
    assert report.strikes
    growth = report.growth()
    few = Footprint(resident=100 * MIB, libraries=4, threads=4, files=8)
    assert all(getattr(growth, name) <= most for name, most in vars(few).items()), report.footprints


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_variants_that_gain_stay_in_service(tmp_path: Path) -> None:
    """Wide panels, compiled ahead: they come when calls become few rows, and run on in the windows that follow."""
    soaked = SERVICE["ranges"]
    soak = Soak(tmp_path, soaked, strike=4.0, service=True, ahead=True)
    try:
        if soak.code in SIDE_BY_SIDE:
            pytest.skip(f"wide panels gain nothing on {soak.code}")
        report = soak.run(pairs=8, seconds=4 * WINDOW)
    finally:
        soak.close()
    assert report.faults == []
    assert report.events["stayed"], report.happened
    assert report.variants <= soaked.most
    assert sum(ran["variants"] for ran in report.ran.values())
