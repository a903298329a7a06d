"""Proofs of schedules: good ones run however their streams interleave, and what is made wrong of them is found."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moec.schedule.build import Options, backward, both, forward
from moec.schedule.steps import COMPUTE, Schedule, Step, Wiring
from moec.schedule.verify import UnsoundSchedule, check, check_programs, require_sound
from tests.schedule.machine import Machine, Wrong
from tests.schedule.wirings import WIRINGS, mesh_of, options

FLAT, AXES = WIRINGS["flat"], WIRINGS["two axes"]
NAMES = st.sampled_from(sorted(WIRINGS))
SEEDS = st.integers(0, 2**32)


@st.composite
def schedules(draw: st.DrawFn, needed_waits_only: bool = False) -> tuple[Wiring, Schedule]:
    wiring = WIRINGS[draw(NAMES)]
    chosen = draw(options(wiring))
    if needed_waits_only:
        chosen = replace(chosen, overlap=("dispatch", "combine"), shared="dispatch")
    return wiring, draw(st.sampled_from((forward, backward)))(wiring, chosen)


def changed(schedule: Schedule, which: str, /, **fields: object) -> Schedule:
    steps = tuple(replace(step, **fields) if step.name == which else step for step in schedule.steps)
    return replace(schedule, steps=steps)


def runs(programs: list[Schedule], wiring: Wiring, seed: int) -> bool:
    try:
        Machine(programs, wiring, mesh_of(wiring), Random(seed)).run()
    except Wrong:
        return False
    return True


@given(st.data(), NAMES, st.booleans())
def test_what_is_built_is_sound(data: st.DataObject, name: str, training: bool) -> None:
    built = both(WIRINGS[name], data.draw(options(WIRINGS[name])), training)
    require_sound(built)
    mesh = mesh_of(WIRINGS[name])
    assert check_programs([built.forward] * mesh.ranks, WIRINGS[name], mesh) == ()


@settings(max_examples=40)
@given(schedules(), SEEDS)
def test_what_is_built_runs_however_streams_interleave(built: tuple[Wiring, Schedule], seed: int) -> None:
    wiring, schedule = built
    assert runs([schedule] * mesh_of(wiring).ranks, wiring, seed)


@given(st.data(), schedules(needed_waits_only=True))
def test_no_signal_can_be_left_out(data: st.DataObject, built: tuple[Wiring, Schedule]) -> None:
    wiring, schedule = built
    step = data.draw(st.sampled_from([step for step in schedule.steps if step.waits]))
    without = data.draw(st.sampled_from(step.waits))
    assert check(changed(schedule, step.name, waits=tuple(w for w in step.waits if w != without)), wiring)


@given(st.data(), schedules())
def test_no_step_can_be_left_out(data: st.DataObject, built: tuple[Wiring, Schedule]) -> None:
    wiring, schedule = built
    step = data.draw(st.sampled_from(schedule.steps))
    rest = tuple(
        replace(s, waits=tuple(w for w in s.waits if w != step.name)) for s in schedule.steps if s.name != step.name
    )
    assert check(replace(schedule, steps=rest), wiring)


@given(st.data(), schedules())
def test_a_missing_send_of_one_rank_is_found(data: st.DataObject, built: tuple[Wiring, Schedule]) -> None:
    wiring, schedule = built
    mesh = mesh_of(wiring)
    step = data.draw(st.sampled_from([step for step in schedule.steps if step.collective]))
    rest = replace(schedule, steps=tuple(s for s in schedule.steps if s.name != step.name))
    programs = [schedule] * (mesh.ranks - 1) + [rest]
    faults = check_programs(programs, wiring, mesh)
    assert any(fault.rank == mesh.ranks - 1 for fault in faults)
    assert any("exchange" in fault.text for fault in faults)


@given(st.data(), schedules())
def test_a_wrong_group_is_found(data: st.DataObject, built: tuple[Wiring, Schedule]) -> None:
    wiring, schedule = built
    step = data.draw(st.sampled_from([step for step in schedule.steps if step.collective]))
    axes = data.draw(st.sampled_from([("node",), ("gpu",), ("node", "gpu"), ("rack",), ()]))
    assume(axes != step.axes)
    wrong = changed(schedule, step.name, axes=axes)
    assert check(wrong, wiring)
    mesh = mesh_of(wiring)
    assert check_programs([schedule] * (mesh.ranks - 1) + [wrong], wiring, mesh)


def swapped(schedule: Schedule, step: Step, by: int) -> Schedule | None:
    """The schedule with a step and the one `by` places behind it on its stream in each other's place."""
    stream = [i for i, other in enumerate(schedule.steps) if other.stream == step.stream]
    place = stream.index(schedule.steps.index(step))
    if place + by >= len(stream):
        return None
    steps = list(schedule.steps)
    one, other = stream[place], stream[place + by]
    steps[one], steps[other] = steps[other], steps[one]
    return replace(schedule, steps=tuple(steps))


@settings(max_examples=150)
@given(st.data(), schedules(), st.integers(1, 3), SEEDS)
def test_what_is_proved_of_a_changed_schedule_is_true(
    data: st.DataObject, built: tuple[Wiring, Schedule], by: int, seed: int
) -> None:
    """Steps change places, on one rank or on all: it is proved and runs, or it is found."""
    wiring, schedule = built
    mesh = mesh_of(wiring)
    wrong = swapped(schedule, data.draw(st.sampled_from(schedule.steps)), by)
    assume(wrong is not None)
    assert wrong is not None
    programs = [wrong] * mesh.ranks if data.draw(st.booleans()) else [schedule] * (mesh.ranks - 1) + [wrong]
    if not check_programs(programs, wiring, mesh):
        assert runs(programs, wiring, seed)


@given(st.data(), schedules())
def test_exchanges_in_another_order_on_one_rank_are_found(data: st.DataObject, built: tuple[Wiring, Schedule]) -> None:
    wiring, schedule = built
    mesh = mesh_of(wiring)
    collectives = [step for step in schedule.steps if step.collective]
    one = data.draw(st.sampled_from(collectives))
    others = [step for step in collectives if step.axes == one.axes and step != one]
    assume(others)
    other = data.draw(st.sampled_from(others))
    places = {one.name: other, other.name: one}
    wrong = replace(schedule, steps=tuple(places.get(step.name, step) for step in schedule.steps))
    assert any("its exchange" in f.text for f in check_programs([schedule] * (mesh.ranks - 1) + [wrong], wiring, mesh))


def test_a_ring_of_waits_is_named() -> None:
    schedule = changed(forward(FLAT, Options()), "counts", waits=("combine.0",))
    (fault,) = check(schedule, FLAT)
    assert fault.text.startswith("these steps wait for each other")
    assert "counts" in fault.text


def test_a_ring_through_four_ranks_is_found() -> None:
    """Each rank by itself could run; over both axes they wait for each other."""
    schedule = forward(AXES, Options(chunks=2, hierarchical=True, shared="dispatch"))
    node, gpu = "dispatch.1.node", "dispatch.0.gpu"
    waits = {step.name: step.waits for step in schedule.steps}
    gpu_first = changed(schedule, node, waits=(*waits[node], gpu))
    node_first = changed(schedule, gpu, waits=(*waits[gpu], node))
    programs = [gpu_first, node_first, node_first, gpu_first]
    assert all(check(program, AXES) == () for program in programs)
    (fault,) = check_programs(programs, AXES, mesh_of(AXES))
    assert fault.text.startswith("these steps wait for each other")
    assert not runs(programs, AXES, seed=0)


def test_a_buffer_that_is_filled_too_early_is_found() -> None:
    schedule = forward(FLAT, Options(chunks=2))
    faults = check(replace(schedule, buffers=1), FLAT)
    assert any("overwrites" in fault.text for fault in faults)


def test_sizes_must_be_told_before() -> None:
    schedule = forward(AXES, Options(hierarchical=True))
    names = [step.name for step in schedule.steps]
    steps = [s for s in schedule.steps if s.name != "counts.gpu"]
    late = next(s for s in schedule.steps if s.name == "counts.gpu")
    steps.insert(names.index("dispatch.0.gpu"), late)
    assert any("sizes.1" in str(fault) for fault in check(replace(schedule, steps=tuple(steps)), AXES))


@pytest.mark.parametrize(
    ("name", "fields", "why"),
    [
        ("pack.0", {"stream": "net.gpu"}, "is on stream"),
        ("dispatch.0", {"stream": COMPUTE}, "is on stream"),
        ("pack.0", {"chunk": 1}, "has chunk 1"),
        ("route", {"chunk": 0}, "has chunk 0"),
        ("pack.0", {"waits": ("nobody",)}, "which does not exist"),
        ("pack.0", {"name": "route"}, "several of this name"),
        ("pack.0", {"kind": "local"}, "does not have"),
        ("dispatch.0", {"hop": 1}, "does not have"),
    ],
)
def test_steps_of_a_wrong_form_are_named(name: str, fields: dict[str, object], why: str) -> None:
    assert any(why in str(fault) for fault in check(changed(forward(FLAT, Options()), name, **fields), FLAT))


def test_an_unsound_schedule_is_refused() -> None:
    good = both(FLAT, Options(), training=True)
    with pytest.raises(UnsoundSchedule, match=r"step experts.0: .*dispatch.0"):
        require_sound(replace(good, forward=changed(good.forward, "experts.0", waits=())))
