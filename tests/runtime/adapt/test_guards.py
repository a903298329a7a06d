"""Guards under simulated time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.artifact.policy import Combination, Comparison, Trigger, Window
from moec.runtime.adapt.guards import FIRST_PAUSE, LONGEST_PAUSE, Guard, State

HOT = Comparison("imbalance", ">", 2.0)


def trigger(window: Window, hysteresis: float = 0.1) -> Trigger:
    return Trigger(HOT, "imbalance > 2", window, hysteresis)


def states(guard: Guard, values: list[float], step: float = 1.0, calls: int = 10) -> list[State]:
    """What the guard says of these imbalances, `step` seconds and `calls` calls apart."""
    return [guard.update({"imbalance": v}, calls * i, step * i) for i, v in enumerate(values)]


def test_trips_after_its_window_of_calls() -> None:
    guard = Guard(trigger(Window(calls=30)))
    assert states(guard, [1.0, 3.0, 3.0, 3.0]) == [State.IDLE, State.HOLDING, State.HOLDING, State.HOLDING]
    assert (guard.held.amount, guard.held.window, guard.held.unit) == (20, 30, "calls")
    assert guard.update({"imbalance": 3.0}, 40, 4.0) is State.TRIPPED


def test_trips_after_its_window_of_seconds() -> None:
    guard = Guard(trigger(Window(seconds=2.0)))
    assert states(guard, [3.0, 3.0, 3.0]) == [State.HOLDING, State.HOLDING, State.TRIPPED]
    assert guard.held.unit == "s"


def test_a_window_of_nothing_trips_at_once() -> None:
    assert states(Guard(trigger(Window(seconds=0.0))), [3.0]) == [State.TRIPPED]


@pytest.mark.parametrize("window", [Window(calls=30), Window(seconds=3.0)], ids=["calls", "seconds"])
def test_how_far_ahead_it_trips(window: Window) -> None:
    """One step is a second and ten calls."""
    guard = Guard(trigger(window))
    states(guard, [1.0])
    assert guard.ahead(10.0) == math.inf, "it does not hold"
    states(guard, [3.0, 3.0, 3.0])
    assert guard.ahead(10.0) == pytest.approx(1.0)
    assert guard.update({"imbalance": 3.0}, 30, 3.0) is State.TRIPPED
    assert guard.ahead(10.0) == 0.0
    guard.handled(3.0, fruitless=False)
    guard.update({"imbalance": 3.0}, 40, 4.0)
    assert guard.ahead(10.0) == pytest.approx(FIRST_PAUSE - 1.0 + 3.0), "the pause, and the window again"
    guard.update({"imbalance": 1.0}, 50, 5.0)
    assert guard.ahead(10.0) == math.inf


def test_a_window_of_calls_that_do_not_come_is_never_over() -> None:
    guard = Guard(trigger(Window(calls=30)))
    states(guard, [3.0])
    assert guard.ahead(0.0) == math.inf


def test_an_interruption_starts_the_window_again() -> None:
    guard = Guard(trigger(Window(seconds=3.0)))
    assert State.TRIPPED not in states(guard, [3.0, 3.0, 1.0, 3.0, 3.0, 1.0, 3.0, 3.0])


def test_wavering_about_the_threshold_is_no_interruption() -> None:
    guard = Guard(trigger(Window(seconds=3.0), hysteresis=0.1))
    assert states(guard, [2.1, 1.9, 2.05, 1.85])[-1] is State.TRIPPED  # 1.8 is where it ends
    guard = Guard(trigger(Window(seconds=3.0), hysteresis=0.1))
    assert states(guard, [2.1, 1.9, 1.75, 1.9, 1.95])[-1] is State.IDLE


def test_a_measure_that_is_missing_holds_nothing() -> None:
    guard = Guard(trigger(Window(seconds=0.0)))
    assert guard.update({}, 0, 0.0) is State.IDLE


def test_not_calls_but_time_pass_while_there_is_no_traffic() -> None:
    guard = Guard(trigger(Window(calls=30)))
    for second in range(100):
        assert guard.update({"imbalance": 3.0}, 10, float(second)) is State.HOLDING


def test_it_pauses_and_the_pause_doubles_while_nothing_comes_of_it() -> None:
    guard = Guard(trigger(Window(seconds=0.0)))
    tripped = []
    now = 0.0
    while now < 20 * LONGEST_PAUSE:
        if guard.update({"imbalance": 3.0}, int(now), now) is State.TRIPPED:
            tripped.append(now)
            guard.handled(now, fruitless=True)
        now += 1.0
    pauses = [b - a for a, b in pairwise(tripped)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 2 * FIRST_PAUSE
    assert pauses[-1] == LONGEST_PAUSE


def test_another_load_ends_the_pause_and_what_it_had_grown_to() -> None:
    guard = Guard(trigger(Window(seconds=0.0)))
    for now in range(2000):
        if guard.update({"imbalance": 3.0}, now, now) is State.TRIPPED:
            guard.handled(now, fruitless=True)
    assert guard.update({"imbalance": 1.0}, 2000, 2000) is State.IDLE
    assert guard.update({"imbalance": 3.0}, 2001, 2001) is State.TRIPPED
    guard.handled(2001, fruitless=True)
    assert guard.update({"imbalance": 3.0}, 2011, 2001 + 2 * FIRST_PAUSE) is State.TRIPPED


@dataclass
class Step:
    imbalance: float
    tokens: float
    calls: int
    seconds: float
    handle: bool
    changed: bool


Steps = st.lists(
    st.builds(
        Step,
        st.floats(0.5, 4.0),
        st.floats(0.0, 100.0),
        st.integers(0, 50),
        st.floats(0.0, 20.0),
        st.booleans(),
        st.booleans(),
    ),
    max_size=60,
)
Conditions = st.sampled_from(
    [
        HOT,
        Comparison("tokens", "<=", 50.0),
        Combination("and", (HOT, Comparison("tokens", ">=", 20.0))),
        Combination("or", (HOT, Comparison("tokens", "<", 20.0))),
    ]
)
Windows = st.one_of(st.builds(Window, calls=st.integers(1, 60)), st.builds(Window, seconds=st.floats(0.0, 30.0)))


@given(Steps, Conditions, Windows, st.floats(0.0, 0.5))
def test_it_trips_only_for_a_reason(
    steps: list[Step], when: Combination | Comparison, window: Window, hysteresis: float
) -> None:
    """Tripped means: the condition held once, its widened form ever since, for the whole window; and no trip is
    nearer to the last one that was handled than the first pause, unless the widened condition was false between."""
    guard = Guard(Trigger(when, "", window, hysteresis))
    widened = when.widened(hysteresis)
    calls, now = 0, 0.0
    begin: tuple[int, float] | None = None  # since when it could have held without interruption
    handled: float | None = None
    for step in steps:
        calls, now = calls + step.calls, now + step.seconds
        values = {"imbalance": step.imbalance, "tokens": step.tokens}
        before = guard.state
        state = guard.update(values, calls, now)
        if not (when.holds(values) or widened.holds(values)):
            begin, handled = None, None
            assert state is State.IDLE
        elif begin is None and when.holds(values):
            begin = (calls, now)
        if state is State.TRIPPED:
            assert begin is not None
            assert calls - begin[0] >= (window.calls or 0)
            assert now - begin[1] >= (window.seconds or 0.0)
            if before is not State.TRIPPED and handled is not None:
                assert now - handled >= FIRST_PAUSE
        elif begin is not None and handled is None:  # nothing stands in its way but the window
            assert calls - begin[0] < (window.calls or 1) or now - begin[1] < (window.seconds or 0.0)
        if state is State.TRIPPED and step.handle:
            guard.handled(now, fruitless=not step.changed)
            handled = now
            begin = None if not when.holds(values) else begin
        held = guard.held
        assert held.amount >= 0
        assert (held.amount > 0) <= (guard.state in (State.HOLDING, State.TRIPPED))


@given(st.floats(0.0, 0.9), st.lists(st.floats(0.0, 10.0), min_size=1, max_size=50))
def test_more_hysteresis_never_delays_the_first_trip(hysteresis: float, values: list[float]) -> None:
    def first(share: float) -> int:
        seen = states(Guard(trigger(Window(seconds=3.0), share)), values)
        return seen.index(State.TRIPPED) if State.TRIPPED in seen else len(values)

    assert first(hysteresis) <= first(0.0)


@pytest.mark.parametrize("changed", [False, True])
def test_a_change_resets_the_pause(changed: bool) -> None:
    guard = Guard(trigger(Window(seconds=0.0)))
    now = 0.0
    for _ in range(3):
        while guard.update({"imbalance": 3.0}, 0, now) is not State.TRIPPED:
            now += 1.0
        guard.handled(now, fruitless=True)
    while guard.update({"imbalance": 3.0}, 0, now) is not State.TRIPPED:
        now += 1.0
    guard.handled(now, fruitless=not changed)
    assert (guard.update({"imbalance": 3.0}, 0, now + FIRST_PAUSE) is State.TRIPPED) == changed
