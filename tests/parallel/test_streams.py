"""Running schedules on threads: order, and what happens when a step fails."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moec.errors import RankError
from moec.runtime.parallel.streams import Program, Thread
from moec.schedule.build import Options, both
from moec.schedule.steps import Schedule, Step, Wiring


def schedule(options: Options) -> Schedule:
    return both(Wiring(("node", "gpu"), ("node", "gpu"), ("node", "gpu"), shared=True), options, False).forward


def program(
    made: Schedule, act: Callable[[Step], Callable[[list[str]], None]], check: Callable[[], None] = lambda: None
) -> tuple[Program[list[str]], dict[str, Thread]]:
    found: Program[list[str]] = Program(made, act, check)
    return found, {name: Thread(name) for name in found.streams}


def noting(step: Step) -> Callable[[list[str]], None]:
    return lambda done: done.append(step.name)


OPTIONS = st.builds(
    Options,
    split=st.sampled_from(["tokens", "experts"]),
    chunks=st.integers(1, 4),
    hierarchical=st.booleans(),
    local_first=st.booleans(),
    overlap=st.sampled_from([(), ("dispatch",), ("dispatch", "combine")]),
    shared=st.sampled_from(["dispatch", "combine", "last"]),
)


@settings(max_examples=40)
@given(OPTIONS)
def test_steps_begin_behind_what_they_wait_for(options: Options) -> None:
    made = schedule(options)
    one, threads = program(made, noting)
    done: list[str] = []
    run = one.run(done, threads)
    assert sorted(done) == sorted(step.name for step in made.steps)
    at = {step.name: number for number, step in enumerate(made.steps)}
    for step in made.steps:
        for name in step.waits:
            assert run.end[at[name]] <= run.begin[at[step.name]]
    for steps in made.streams().values():
        assert [name for name in done if name in {step.name for step in steps}] == [step.name for step in steps]
    alone: list[str] = []
    one.run_here(alone)
    assert alone == [step.name for step in made.steps]


@pytest.mark.parametrize("kind", ["route", "counts", "exchange", "relay", "experts", "collect"])
def test_the_first_error_reaches_the_caller_and_nothing_begins_behind_it(kind: str) -> None:
    made = schedule(Options(chunks=3, hierarchical=True))
    failing = next(step for step in made.steps if step.kind == kind)

    def act(step: Step) -> Callable[[list[str]], None]:
        def fail(done: list[str]) -> None:
            raise ValueError(step.name)

        return fail if step is failing else noting(step)

    one, threads = program(made, act)
    for _ in range(20):
        done: list[str] = []
        with pytest.raises(ValueError, match=failing.name):
            one.run(done, threads)
        behind, last = {failing.name}, {failing.stream: failing.name}
        for step in made.steps[made.steps.index(failing) + 1 :]:
            if behind & {*step.waits, last.get(step.stream)}:
                behind.add(step.name)
            last[step.stream] = step.name
        assert not behind & set(done)
    done = []
    Program(made, noting, lambda: None).run(done, threads)
    assert len(done) == len(made.steps), "threads outlive what fails on them"


def test_a_thread_ends_with_what_it_is_given_to_and_keeps_nothing_of_a_run() -> None:
    class State(list[str]):
        """A list that can be referred to weakly."""

    one, threads = program(schedule(Options(chunks=2)), noting)
    names = {f"moec-{name}" for name in threads}
    state = State()
    one.run(state, threads)
    reference = weakref.ref(state)
    del state
    assert ends(lambda: reference() is None)
    assert names <= {thread.name for thread in threading.enumerate()}
    del threads
    assert ends(lambda: not names & {thread.name for thread in threading.enumerate()})


def ends(gone: Callable[[], bool], seconds: float = 120.0) -> bool:
    """Whether that comes soon: another thread may be just about to let go."""
    end = time.monotonic() + seconds
    while gc.collect() >= 0 and not gone() and time.monotonic() < end:
        time.sleep(0.01)
    return gone()


def test_who_waits_looks_up() -> None:
    """A stream that is stuck in an exchange does not keep the caller once another rank is known to have failed."""
    made, release = schedule(Options()), threading.Event()

    def act(step: Step) -> Callable[[list[str]], None]:
        return lambda _: release.wait(200) and None if step.kind == "counts" else None

    def check() -> None:
        raise RankError("rank 1 is gone", (1,))

    one, threads = program(made, act, check)
    begin = time.monotonic()
    with pytest.raises(RankError, match="rank 1 is gone"):
        one.run([], threads)
    assert time.monotonic() - begin < 100
    release.set()
