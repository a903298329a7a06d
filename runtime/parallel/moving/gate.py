"""Which tables a step uses: all ranks change them at the same step, and no step waits unless the ranks still confer.

Ranks make the same steps in the same order, but each at its own pace, and what moves experts is another thread.  When
everything has arrived everywhere, each rank's thread puts up a **fence** a few steps ahead of where its rank is; the
farthest fence of all ranks is where all change.  No rank can have passed it, for none passes its own before it knows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from moec.errors import RankError
from moec.placement.lookup import Lookup
from moec.placement.table import Table


@dataclass(frozen=True)
class Active:
    """The tables that are in force, one for each layer.

    version  counts the changes of tables
    lookups  where this rank's tokens go; None where the rank is at none of a table's positions
    """

    version: int
    tables: tuple[Table, ...]
    lookups: tuple[Lookup | None, ...]

    @property
    def serves(self) -> bool:
        """Whether this rank takes part in steps."""
        return None not in self.lookups


@dataclass(frozen=True)
class Swap:
    """Tables that take force when step `step` begins; `apply` puts in place what had to wait for that."""

    step: int
    to: Active
    apply: Callable[[], None]


@dataclass(frozen=True)
class Swapped:
    """What was changed at which step, and for how many seconds that kept the step from beginning."""

    step: int
    seconds: float


class Gate:
    """One rank's.  `begin` is called by whoever makes steps, one at a time; all else by the thread that moves experts.

    timeout  seconds that a step waits for the ranks to confer
    """

    def __init__(self, active: Active, timeout: float) -> None:
        self._active = active
        self._timeout = timeout
        self._changed = threading.Condition()
        self._step = 0
        self._fence: int | None = None
        self._swap: Swap | None = None
        self._last: Swapped | None = None
        self._error: RankError | None = None
        self._closed = False

    @property
    def active(self) -> Active:
        """The tables of the step that began last."""
        return self._active

    @property
    def last(self) -> Swapped | None:
        """The last change."""
        return self._last

    @property
    def step(self) -> int:
        """How many steps have begun."""
        return self._step

    def begin(self) -> Active:
        """The next step begins; the tables for all of it.

        Where they do not `serve`, this rank has left: the step is not its own, nor are the next, until `join`.
        Raises RankError where ranks may disagree about the tables.
        """
        with self._changed:
            begin = time.perf_counter()
            if self._fence is not None and self._step >= self._fence:
                self._wait(lambda: self._fence is None)
            if self._error is not None:
                raise self._error
            if self._swap is not None and self._step >= self._swap.step:
                self._take(begin)
            self._step += self._active.serves
            return self._active

    def join(self, timeout: float | None = None) -> bool:
        """Of a rank that does not serve: wait until it will, so that its next step is the one that the others make.

        False after `timeout` seconds, or where nothing will change any more.
        """
        with self._changed:
            if self._active.serves:
                return True
            found = self._changed.wait_for(self._joins, timeout)
            if self._error is not None:
                raise self._error
            if not found or self._swap is None or not self._swap.to.serves:
                return False
            self._step = self._swap.step
            return True

    def fence(self, ahead: int) -> int:
        """Let no step begin that is `ahead` steps away, until `swap`, `open` or `fail`.  Returns its number."""
        with self._changed:
            if not self._active.serves:
                return 0
            self._fence = self._step + ahead
            return self._fence

    def open(self) -> None:
        """Everything stays as it is."""
        with self._changed:
            self._fence = None
            self._changed.notify_all()

    def swap(self, swap: Swap) -> None:
        """Change tables at the beginning of a step that is not before this rank's fence."""
        with self._changed:
            self._swap, self._fence = swap, None
            if not self._active.serves and not swap.to.serves:
                self._take(time.perf_counter())
            self._changed.notify_all()

    def close(self) -> None:
        """As `open`; and nothing will change any more."""
        with self._changed:
            self._fence, self._closed = None, True
            self._changed.notify_all()

    def fail(self, error: RankError) -> None:
        """No step may begin any more: the others may change tables and this rank does not know."""
        with self._changed:
            self._error, self._fence = error, None
            self._changed.notify_all()

    def settled(self, timeout: float) -> bool:
        """Whether no change of tables is due; waits so many seconds for it."""
        with self._changed:
            return self._changed.wait_for(lambda: self._swap is None, timeout)

    def _joins(self) -> bool:
        return self._closed or self._error is not None or (self._swap is not None and self._swap.to.serves)

    def _wait(self, done: Callable[[], bool]) -> None:
        if not self._changed.wait_for(done, self._timeout):
            self._error = RankError(f"ranks did not agree within {self._timeout:g} s when to move experts", ())

    def _take(self, begin: float) -> None:
        swap, self._swap = self._swap, None
        if swap is not None:
            swap.apply()
            self._active = swap.to
            self._last = Swapped(swap.step, time.perf_counter() - begin)
            self._changed.notify_all()
