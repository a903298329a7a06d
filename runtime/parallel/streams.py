"""Runs a schedule: the steps of `compute` in the calling thread, each other stream in a thread of its own.

A step begins when the one before it on its stream has ended and every step that it waits for has; a signal is a lock
that is opened once.  If a step fails, no other begins, and the caller gets its error.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from time import perf_counter_ns
from typing import Generic, TypeVar

import torch

from moec.errors import MoecError
from moec.schedule.steps import COMPUTE, Schedule, Step

State = TypeVar("State")

SLICE = 0.25
"""Seconds; a waiting thread looks up so often to see whether another rank has failed."""


class Stopped(MoecError):
    """Another stream of this rank has failed."""


@dataclass(frozen=True)
class _Bound(Generic[State]):
    """A step of a program: its number, what it does, and the numbers of the steps that it waits for."""

    number: int
    run: Callable[[State], None]
    waits: tuple[int, ...]


class Run:
    """One time through a program.

    begin, end  of each step, ns of `time.perf_counter_ns`; 0 for what did not run
    """

    def __init__(self, steps: int, signals: bool) -> None:
        self.begin = [0] * steps
        self.end = [0] * steps
        self.error: BaseException | None = None
        self._locks = [threading.Lock() for _ in range(steps)] if signals else []
        for lock in self._locks:
            lock.acquire()
        self._failing = threading.Lock()

    def wait(self, step: int, check: Callable[[], None]) -> None:
        """Until the step has ended.  Raises Stopped where it never will."""
        lock = self._locks[step]
        while not lock.acquire(timeout=SLICE):
            check()
        lock.release()
        if not self.end[step]:
            raise self.error or Stopped("another stream has failed")

    def ended(self, step: int, begin: int) -> None:
        self.begin[step], self.end[step] = begin, perf_counter_ns()
        self._locks[step].release()

    def fail(self, error: BaseException, steps: Sequence[int]) -> None:
        """A stream gives up: these steps of it will not end."""
        with self._failing:
            if self.error is None:
                self.error = error
        for step in steps:
            self._locks[step].release()


class Program(Generic[State]):
    """A schedule whose steps are bound to what they do.

    act    gives for a step what it does to the state of a call
    check  raises if there is no point in waiting any longer
    """

    def __init__(
        self, schedule: Schedule, act: Callable[[Step], Callable[[State], None]], check: Callable[[], None]
    ) -> None:
        self.steps = schedule.steps
        number = {step.name: i for i, step in enumerate(schedule.steps)}
        self._all: list[_Bound[State]] = []
        self._streams: dict[str, list[_Bound[State]]] = {COMPUTE: []}
        for step in schedule.steps:
            bound = _Bound(number[step.name], act(step), tuple(number[name] for name in step.waits))
            self._all.append(bound)
            self._streams.setdefault(step.stream, []).append(bound)
        self._check = check

    @property
    def streams(self) -> tuple[str, ...]:
        """Those that need a thread."""
        return tuple(name for name in self._streams if name != COMPUTE)

    def run(self, state: State, threads: Mapping[str, Thread]) -> Run:
        """All steps, on `threads` by the names of their streams.  Raises what the first step that failed raised."""
        run = Run(len(self.steps), signals=True)
        for name in self.streams:
            threads[name].submit(partial(self._stream, self._streams[name], state, run))
        self._stream(self._streams[COMPUTE], state, run)
        for name in self.streams:
            if run.error is not None:
                raise run.error
            run.wait(self._streams[name][-1].number, self._check)
        return run

    def run_here(self, state: State) -> Run:
        """All steps in the calling thread, in the order of the schedule: sooner done where nothing takes long.

        Ranks may choose by themselves, as the exchanges of each group keep their order.
        """
        run = Run(len(self.steps), signals=False)
        for step in self._all:
            run.begin[step.number] = perf_counter_ns()
            step.run(state)
            run.end[step.number] = perf_counter_ns()
        return run

    def _stream(self, stream: Sequence[_Bound[State]], state: State, run: Run) -> None:
        done = 0
        try:
            for step in stream:
                for other in step.waits:
                    run.wait(other, self._check)
                if run.error is not None:
                    raise Stopped("another stream has failed")
                begin = perf_counter_ns()
                step.run(state)
                run.ended(step.number, begin)
                done += 1
        except BaseException as error:  # noqa: BLE001  the caller gets it, on whichever thread it was
            run.fail(error, [step.number for step in stream[done:]])


class Thread:
    """A thread that runs what it is given, one thing after the other, as long as this object is there."""

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        weakref.finalize(self, self._work.put, None)
        threading.Thread(target=_serve, args=(self._work,), name=f"moec-{name}", daemon=True).start()

    def submit(self, work: Callable[[], None]) -> None:
        self._work.put(work)


def _serve(queue: SimpleQueue[Callable[[], None] | None]) -> None:
    with torch.no_grad():
        while (work := queue.get()) is not None:
            work()
            del work  # it has the layer and its tensors, which are not to live on until the next call
