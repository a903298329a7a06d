"""How much of a link moves may take."""

from __future__ import annotations

import threading

import pytest

from moec.errors import PlacementError
from moec.runtime.parallel.moving.throttle import Throttle


def test_a_share_of_the_time() -> None:
    assert Throttle(0.25).rest(100, 1.0) == pytest.approx(3.0)
    assert Throttle(1.0).rest(100, 1.0) == 0


def test_a_rate_bounds_what_a_share_would_allow() -> None:
    assert Throttle(0.5, rate=100.0).rest(1000, 1.0) == pytest.approx(9.0)
    assert Throttle(0.5, rate=1e9).rest(1000, 1.0) == pytest.approx(1.0)


def test_a_pause_ends_with_resume() -> None:
    throttle = Throttle(1.0)
    throttle.pause()
    assert throttle.paused
    assert not throttle.wait(0.01)
    threading.Timer(0.05, throttle.resume).start()
    assert throttle.wait(100)


@pytest.mark.parametrize(("share", "rate"), [(0, None), (1.5, None), (0.5, 0)])
def test_nonsense_is_refused(share: float, rate: float | None) -> None:
    with pytest.raises(PlacementError, match="share"):
        Throttle(share, rate)
