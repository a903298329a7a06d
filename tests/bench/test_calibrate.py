"""Links are slowed or sped up until the exchange takes the part of a call that was asked for."""

from __future__ import annotations

from typing import Any

import pytest

from bench.parallel import calibrate
from bench.parallel.network import Network, Shape

COMPUTE, FIXED, MOVED = 0.7, 0.02, 30e6
"""Seconds, seconds and bytes of a call."""


@pytest.mark.parametrize("between", [2e6, 3e7, 4e9])
@pytest.mark.parametrize("part", [0.3, 0.47, 0.6])
def test_the_part_that_is_asked_for(between: float, part: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def calls(network: Network, job: object, **arguments: Any) -> list[dict[str, Any]]:
        """Four ranks; the first and the last call of six are outliers."""
        taken = {"blocking": COMPUTE + FIXED + MOVED / network.shape.between, "without": COMPUTE}
        every = {
            route: [{"begin": 1.0, "end": 1.0 + seconds * scale} for scale in (3.0, 1.0, 1.0, 1.0, 1.0, 0.2)]
            for route, seconds in taken.items()
        }
        return [{"calls": every}] * 4

    def reshape(network: Network, between: float, within: float) -> None:
        network.shape = Shape(2, 2, between, within)

    monkeypatch.setattr(calibrate, "run", calls)
    monkeypatch.setattr(Network, "reshape", reshape)
    monkeypatch.setattr(calibrate, "TRIES", 12)
    network = Network(Shape(2, 2, between, 10 * between))
    tried = calibrate.shaped(network, part)
    assert tried[0][0] == between
    used, found = tried[-1]
    assert used == network.shape.between
    assert found == pytest.approx(part, abs=calibrate.CLOSE)
    assert network.shape.within == pytest.approx(10 * network.shape.between)
