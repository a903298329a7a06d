"""How much of a link what moves in the background may take."""

from __future__ import annotations

import threading

from moec.errors import PlacementError


class Throttle:
    """Says after every piece for how long to leave the link alone.

    share  of the time in which pieces are sent, in (0, 1]
    rate   bytes/s over longer times; None: no bound but `share`
    """

    def __init__(self, share: float, rate: float | None = None) -> None:
        if not 0 < share <= 1 or (rate is not None and rate <= 0):
            raise PlacementError(
                f"experts cannot move: a share must be in (0, 1] and a rate above 0, not {share} and {rate}"
            )
        self._share, self._rate = share, rate
        self._going = threading.Event()
        self._going.set()

    @property
    def paused(self) -> bool:
        return not self._going.is_set()

    def pause(self) -> None:
        """Nothing is sent any more, until `resume`."""
        self._going.clear()

    def resume(self) -> None:
        self._going.set()

    def wait(self, seconds: float) -> bool:
        """Wait until it goes on, so many seconds at most; whether it does."""
        return self._going.wait(seconds)

    def rest(self, nbytes: int, seconds: float) -> float:
        """For how many seconds to send nothing after a piece of `nbytes` that took `seconds`."""
        least = nbytes / self._rate if self._rate is not None else 0.0
        return max(seconds / self._share, least) - seconds
