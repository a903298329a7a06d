"""`layer.adapt()`: the thread that lets a layer follow its load, and the handle to it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import wait
from types import TracebackType
from typing import Any, Self

from moec.artifact.policy import Policy
from moec.artifact.specialisation import Specialisation
from moec.runtime.adapt.contracts import Compiler, Proposer
from moec.runtime.adapt.controller import Controller
from moec.runtime.adapt.forking import in_children
from moec.runtime.adapt.journal import Journal
from moec.runtime.adapt.paging import Paging
from moec.runtime.adapt.statistics import LoadStatistics
from moec.runtime.packing.weights import PackedWeights

_PACE = 0.25
_PACE_AT_WORK = 0.02
"""Seconds between two steps of the controller."""
_MOST_FAILURES = 10
_LAST_WAIT = 5.0


class Adaptation:
    """A running adaptation of one layer; ends with `stop`, with a `with` block, with the layer or with the process.

    Nothing that goes wrong in it reaches the layer's callers: it is logged under `moec.adapt`, and stands in
    `decisions` and in the journal.  A forked child inherits what the layer runs, but does not adapt.

    statistics  the layer's load
    policy      what may be changed, and when
    paging      what keeps cold experts on disk; None: the policy does not ask for it
    """

    def __init__(
        self,
        store: PackedWeights,
        policy: Policy,
        statistics: LoadStatistics,
        proposer: Proposer,
        compiler: Compiler,
        journal: Journal,
        pace: float = _PACE,
        paging: Paging | None = None,
        **options: Any,
    ) -> None:
        self.statistics = statistics
        self.policy = policy
        self.paging = paging
        self._journal = journal
        self._controller = Controller(store, policy, statistics, proposer, compiler, journal, paging=paging, **options)
        self._pace = pace
        self._failures = 0
        self._ending = threading.Event()
        self._thread: threading.Thread | None = threading.Thread(
            target=_work, args=(weakref.ref(self), self._ending), name=f"moec-adapt-{statistics.layer}", daemon=True
        )
        self._close = weakref.finalize(self, _close, self._ending, compiler, paging, self._thread)
        weakref.finalize(store, self._ending.set).atexit = False
        in_children(self)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether this process watches the load: not after `stop` or too many failures, nor in a forked child."""
        thread = self._thread
        return thread is not None and thread.is_alive() and not self._ending.is_set()

    @property
    def decisions(self) -> tuple[Mapping[str, Any], ...]:
        """What was decided and done, oldest first: the journal's records without samples; the last thousand."""
        return tuple(self._controller.decisions)

    @property
    def variants(self) -> Mapping[str, Specialisation]:
        """What runs beside the layer that was compiled ahead, by name."""
        return dict(self._controller.stage.running)

    @property
    def journal(self) -> str:
        """The journal's file."""
        return str(self._journal.path)

    def stop(self) -> None:
        """End it; variants that were kept go on running.  May be called twice."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __deepcopy__(self, memo: dict[int, object]) -> None:
        """A copy of a layer does not adapt."""

    def step(self) -> float | None:
        """What the thread does again and again; seconds until the next time, None at the end."""
        try:
            self._controller.tick()
            self._failures = 0
        except Exception as error:  # noqa: BLE001  the layer's callers have nothing to do with it
            self._failures += 1
            self._controller.abandon(f"{type(error).__name__}: {error}")
            if self._failures >= _MOST_FAILURES:
                return None
        return min(self._pace, _PACE_AT_WORK) if self._controller.attempt is not None else self._pace

    def finish(self) -> None:
        """The last thing that the thread does."""
        working = self._controller.attempt.working if self._controller.attempt is not None else None
        self._controller.stop()
        self._journal.close()
        if working is not None:  # native code must not run on while the interpreter is taken apart
            wait((working,), _LAST_WAIT)

    def forked(self) -> None:
        """In a forked child there is no thread, and compiler and journal are the parent's."""
        self._thread = None
        self._close.detach()
        self._ending.set()
        self._journal.close()
        self._controller.forked()


def _work(reference: weakref.ref[Adaptation], ending: threading.Event) -> None:
    pause: float | None = 0.0
    while pause is not None and not ending.wait(pause):
        adaptation = reference()
        if adaptation is None:
            return
        pause = adaptation.step()
        del adaptation
    last = reference()
    if last is not None:
        last.finish()
        last.stop()


def _close(ending: threading.Event, compiler: Compiler, paging: Paging | None, thread: threading.Thread) -> None:
    """Of an adaptation that is stopped, or gone, or at the end of the process."""
    ending.set()
    compiler.close()
    if paging is not None:
        paging.stop()
    if thread is not threading.current_thread():
        thread.join(_LAST_WAIT)
