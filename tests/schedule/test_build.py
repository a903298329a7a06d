"""Schedules from options: the streams, the order and the signals that they should have."""

from itertools import pairwise

import pytest

from moec.schedule.build import BLOCKING, Options, backward, both, forward
from moec.schedule.steps import Schedule, Wiring
from tests.schedule.wirings import WIRINGS


def lines(schedule: Schedule) -> list[str]:
    return [f"{step.stream}: {step.name} <- {' '.join(step.waits)}".rstrip() for step in schedule.steps]


def test_what_is_sent_without_a_schedule_blocks() -> None:
    assert lines(forward(WIRINGS["two axes"], BLOCKING)) == [
        "compute: route <-",
        "net.all: counts <- route",
        "compute: pack.0 <-",
        "net.all: dispatch.0 <- pack.0",
        "compute: experts.0 <- dispatch.0",
        "net.all: combine.0 <- experts.0",
        "compute: shared <- combine.0",
        "compute: collect.0 <-",
    ]


def test_chunks_of_tokens_travel_while_others_are_computed() -> None:
    chosen = Options(chunks=2, deduplicate=True, local_first=True, shared="dispatch")
    assert lines(forward(WIRINGS["two axes"], chosen)) == [
        "compute: route <-",
        "net.all: counts <- route",
        "compute: pack.0 <-",
        "net.all: dispatch.0 <- pack.0",
        "compute: pack.1 <-",
        "net.all: dispatch.1 <- pack.1",
        "compute: local <-",
        "compute: shared <-",
        "compute: experts.0 <- dispatch.0",
        "net.all: combine.0 <- experts.0",
        "compute: experts.1 <- dispatch.1",
        "net.all: combine.1 <- experts.1",
        "compute: collect.0 <- combine.0",
        "compute: collect.1 <- combine.1",
    ]


def test_what_stays_can_hide_the_last_results() -> None:
    schedule = forward(WIRINGS["flat"], Options(chunks=2, deduplicate=True, local_first=True, local="combine"))
    assert [step.name for step in schedule.streams()["compute"]] == [
        "route", "pack.0", "pack.1", "experts.0", "experts.1", "local", "collect.0", "collect.1",
    ]  # fmt: skip
    assert next(step for step in schedule.steps if step.name == "local").waits == ()


def test_what_stays_can_hide_the_first_rows_and_the_last_results() -> None:
    chosen = Options(chunks=3, deduplicate=True, local_first=True, local="both")
    assert [line for line in lines(forward(WIRINGS["flat"], chosen)) if line.startswith("compute")][4:] == [
        "compute: local.0 <-",
        "compute: local.1 <-",
        "compute: experts.0 <- dispatch.0",
        "compute: experts.1 <- dispatch.1",
        "compute: experts.2 <- dispatch.2",
        "compute: local.2 <-",
        "compute: collect.0 <- combine.0",
        "compute: collect.1 <- combine.1",
        "compute: collect.2 <- combine.2",
    ]


def test_the_hops_of_a_hierarchical_exchange_have_streams_of_their_own() -> None:
    schedule = forward(WIRINGS["two axes"], Options(hierarchical=True, shared="dispatch"))
    assert lines(schedule)[1:] == [
        "net.node: counts.node <- route",
        "net.gpu: counts.gpu <- counts.node",
        "compute: pack.0 <-",
        "net.node: dispatch.0.node <- pack.0",
        "net.gpu: relay.dispatch.0 <- dispatch.0.node",
        "net.gpu: dispatch.0.gpu <-",
        "compute: shared <-",
        "compute: experts.0 <- dispatch.0.gpu",
        "net.gpu: combine.0.gpu <- experts.0",
        "net.node: relay.combine.0 <- combine.0.gpu",
        "net.node: combine.0.node <-",
        "compute: collect.0 <- combine.0.node",
    ]


def test_a_buffer_is_filled_again_only_when_it_was_read() -> None:
    schedule = forward(WIRINGS["flat"], Options(chunks=3, buffers=1))
    waits = {step.name: step.waits for step in schedule.steps}
    assert waits["pack.1"] == ()  # experts.0, before it on its stream, has waited for dispatch.0
    assert waits["dispatch.1"] == ("pack.1",)  # which is behind experts.0, the reader of what arrived
    assert waits["experts.1"] == ("dispatch.1",)  # which is behind combine.0 on its stream
    assert [step.name for step in schedule.streams()["net.all"]] == [
        "counts", "dispatch.0", "combine.0", "dispatch.1", "combine.1", "dispatch.2", "combine.2",
    ]  # fmt: skip


def test_what_shall_not_overlap_waits_for_the_last_chunk() -> None:
    waits = {s.name: s.waits for s in forward(WIRINGS["flat"], Options(chunks=2, overlap=("combine",))).steps}
    assert waits["experts.0"] == ("dispatch.1",)
    waits = {s.name: s.waits for s in forward(WIRINGS["flat"], Options(chunks=2, overlap=("dispatch",))).steps}
    assert waits["combine.0"] == ("experts.1",)


def test_backward_begins_with_collect_and_ends_with_the_sums_of_gradients() -> None:
    schedule = backward(WIRINGS["tensor"], Options(chunks=2, local_first=True, shared="dispatch"))
    assert (schedule.split, schedule.local_first) == ("experts", False)
    assert lines(schedule)[0] == "compute: collect <-"
    assert lines(schedule)[-2:] == ["compute: route <- combine.1", "net.all: gradients <- route"]
    assert not any(step.kind == "counts" for step in schedule.steps)


def test_chunks_go_in_the_order_that_is_asked_for() -> None:
    schedule = forward(WIRINGS["flat"], Options("experts", 3, order=(2, 0, 1)))
    assert [step.chunk for step in schedule.steps if step.kind == "experts"] == [2, 0, 1]
    assert [step.name for step in schedule.streams()["net.all"]][:3] == ["counts", "dispatch.2", "dispatch.0"]


def test_training_keeps_all_buffers() -> None:
    schedules = both(WIRINGS["flat"], Options(chunks=3, buffers=1), training=True)
    assert schedules.forward.buffers == 3
    assert schedules.backward is not None


@pytest.mark.parametrize("total", [0, 1, 5, 64])
def test_the_ranges_of_chunks_are_the_whole(total: int) -> None:
    schedule = forward(WIRINGS["flat"], Options(chunks=3))
    ranges = [schedule.range(chunk, total) for chunk in range(3)]
    assert (ranges[0][0], ranges[-1][1]) == (0, total)
    assert all(before[1] == after[0] for before, after in pairwise(ranges))


@pytest.mark.parametrize(
    ("wiring", "options"),
    [
        (WIRINGS["flat"], Options(hierarchical=True)),
        (WIRINGS["flat"], Options(chunks=0)),
        (WIRINGS["flat"], Options(buffers=2)),
        (WIRINGS["flat"], Options(split="rows")),
        (WIRINGS["flat"], Options(local_first=True, local="never")),
        (WIRINGS["tensor only"], Options(local_first=True)),
        (WIRINGS["tensor"], Options(local_first=True)),
        (WIRINGS["flat"], Options(chunks=2, order=(0, 0))),
        (WIRINGS["flat"], Options(chunks=2, order=(1, 0), buffers=1)),
        (Wiring(("gpu",), ("gpu",), ()), Options()),
    ],
)
def test_options_that_contradict_the_wiring_are_refused(wiring: Wiring, options: Options) -> None:
    with pytest.raises(ValueError):
        forward(wiring, options)
