"""Simulated calls: against predictions where nothing is shared, against times worked out by hand where links are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moec.errors import TraceError
from moec.schedule.build import BLOCKING, Options, backward, forward
from moec.schedule.demand import Demand, Flow, Held, Load
from moec.schedule.links import Links
from moec.schedule.machine import Cost, Layer, Link, Machine
from moec.schedule.mesh import Axis, Mesh
from moec.schedule.predict import predict
from moec.schedule.routing import Choices
from moec.schedule.simulate import simulate, simulate_trace
from moec.schedule.steps import Step, Wiring
from moec.trace import Header, Sample, TraceWriter
from tests.schedule.wirings import WIRINGS, options

LAYER = Layer(16, 3, x=64, y=64, row=64, result=128, sum=128, gradient=128, expert_flops=1.0, expert_bytes=1.0,
              route_flops=1.0, route_bytes=64.0, shared_flops=1.0, shared_bytes=64.0)  # fmt: skip
MACHINE = Machine(
    route=Cost(1e-4, 1e-6, 0.0), experts=Cost(1e-4, 1e-5, 1e-5), shared=Cost(1e-4, 2e-5, 0.0),
    collect=Cost(1e-5, 1e-6, 0.0), copy=1e-9, step=1e-5, message=1e-6, processor=0.0, handling=0.0,
    links={"node": Link(1e7, 5e-5), "gpu": Link(1e8, 1e-5)},
)  # fmt: skip


def demand(wiring: Wiring, chosen: Options, skewed: bool = False, direction: str = "forward") -> Demand:
    mesh = Mesh("M", tuple(Axis(name, 2) for name in wiring.mesh))
    positions = max(1, mesh.size(wiring.ep))
    shares = np.arange(1.0, 17.0) if skewed else np.ones(16)
    choices = Choices(tuple((shares / shares.sum()).tolist()), 3)
    load = Load(100.0, choices, Held.of([[e % positions] for e in range(16)]))
    make = forward if direction == "forward" else backward
    return Demand(make(wiring, chosen), wiring, mesh, LAYER, load)


@settings(max_examples=60)
@given(st.data(), st.sampled_from(["flat", "two axes", "tensor only", "capacity"]), st.booleans())
def test_one_exchange_at_a_time_takes_what_is_predicted(data: st.DataObject, name: str, skewed: bool) -> None:
    """On one stream nothing is shared; where ranks differ, all wait for the last one in both."""
    chosen = replace(data.draw(options(WIRINGS[name])), hierarchical=False)
    direction = data.draw(st.sampled_from(["forward", "backward"]))
    of = demand(WIRINGS[name], chosen, skewed, direction)
    found, expected = simulate(of, MACHINE), predict(of, MACHINE)
    assert found.seconds == pytest.approx(expected.seconds, rel=1e-6)
    assert found.alone == pytest.approx(expected.alone, rel=1e-6, abs=1e-9)
    assert [span.step for span in found.spans] == [span.step for span in expected.spans]


@settings(max_examples=60)
@given(st.data(), st.sampled_from(sorted(WIRINGS)))
def test_streams_that_share_links_take_longer_at_most(data: st.DataObject, name: str) -> None:
    of = demand(WIRINGS[name], data.draw(options(WIRINGS[name])))
    found, expected = simulate(of, MACHINE), predict(of, MACHINE)
    assert expected.seconds * (1 - 1e-6) <= found.seconds <= 2 * expected.seconds
    assert all(span.end < float("inf") for span in found.spans)
    assert all(0 <= part <= 1 + 1e-9 for part in found.busy.values())


@settings(max_examples=30)
@given(st.data(), st.sampled_from(["flat", "two axes"]))
def test_a_processor_that_moves_bytes_computes_less(data: st.DataObject, name: str) -> None:
    of = demand(WIRINGS[name], replace(data.draw(options(WIRINGS[name])), hierarchical=False))
    busy = replace(MACHINE, processor=data.draw(st.sampled_from([0.0, 4e-9])), handling=1e-7)
    found, expected = simulate(of, busy), predict(of, busy)
    assert found.seconds >= simulate(of, MACHINE).seconds * (1 - 1e-9)
    assert found.seconds == pytest.approx(expected.seconds, rel=0.02)


def test_a_link_is_shared_evenly() -> None:
    """100 bytes at time 0 and 100 at time 5, over 10 bytes/s: 50 are left when the second comes; 50 + 100 take 15 s."""
    links = Links(Mesh("M", (Axis("gpu", 2),)), {"gpu": Link(10.0, 0.0)})
    assert links.add(0, (0, 0), 100.0, 0.0) == []
    assert links.next(0) == (10.0, 1)
    assert links.add(0, (1, 0), 100.0, 5.0) == []
    assert links.advance(0, 1, 10.0) == []  # what was announced before holds no more
    when, version = links.next(0) or (0.0, 0)
    assert when == pytest.approx(15.0)
    assert links.advance(0, version, when) == [(0, 0)]
    when, version = links.next(0) or (0.0, 0)
    assert when == pytest.approx(20.0)
    assert links.advance(0, version, when) == [(1, 0)]
    assert links.next(0) is None
    assert links.busy(40.0) == {"gpu": pytest.approx(0.5)}


def test_the_links_of_a_node_are_those_of_all_its_devices() -> None:
    mesh = Mesh("M", (Axis("node", 2), Axis("gpu", 3)))
    links = Links(mesh, {"node": Link(1.0, 0.0), "gpu": Link(1.0, 0.0)})
    out = np.stack([np.full((2, 3), 5.0), np.full((2, 3), 7.0)])
    flow = Flow(out, np.zeros_like(out), 6)
    used = links.used(flow, Step("d", "exchange", "net.all", axes=("node", "gpu")), range(6))
    assert used == [(0, 15.0), (2, 15.0), *((4 + 2 * rank, 7.0) for rank in range(6))]
    used = links.used(flow, Step("d", "exchange", "net.node", axes=("node",)), (1, 4))
    assert used == [(0, 5.0), (2, 5.0)]


def test_two_streams_over_one_link_are_slower_than_each_alone() -> None:
    """The shared experts' x is gathered over the links that dispatch uses at the same time."""
    both = ("node", "gpu")
    wiring = Wiring(both, both, both, shared=True, shared_tp=("gpu",))
    machine = replace(MACHINE, route=Cost(0.0, 0.0, 0.0), links={"node": Link(1e9, 0.0), "gpu": Link(1e5, 0.0)})
    of = demand(wiring, Options(shared="dispatch"))
    alone_, shared = predict(of, machine), simulate(of, machine)
    took = {span.step: span.end - span.begin for span in shared.spans}
    expected = {span.step: span.end - span.begin for span in alone_.spans}
    assert took["gather.shared"] > 1.2 * expected["gather.shared"]
    assert shared.seconds > alone_.seconds


def test_a_hot_rank_delays_its_group_first() -> None:
    """Over gpu only the hot rank's node waits; the other node ends earlier."""
    wiring = WIRINGS["inside the nodes"]
    mesh = Mesh("M", (Axis("node", 2), Axis("gpu", 2)))
    tokens = np.array([[1000.0, 1000.0], [10.0, 10.0]])
    load = Load(tokens, Choices((1 / 4,) * 4, 1), Held.of([[0], [0], [1], [1]]))
    of = Demand(forward(replace(wiring, shared=False, shared_tp=()), BLOCKING), wiring, mesh, LAYER, load)
    found = simulate(replace(of, wiring=replace(wiring, shared=False, shared_tp=())), MACHINE)
    small = replace(of, load=replace(load, tokens=10.0), wiring=replace(wiring, shared=False, shared_tp=()))
    assert found.seconds > 5 * simulate(small, MACHINE).seconds


def test_recorded_calls_are_simulated(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    even, hot = (30,) * 16, (160, *(20,) * 16)[:16]
    with TraceWriter(path, Header("L", 16, 3)) as writer:
        for number in range(6):
            writer.write(Sample(float(number), 160, even if number % 2 else hot))
        writer.write(Sample(7.0, 0, (0,) * 16))
    of = demand(WIRINGS["two axes"], BLOCKING)
    found = simulate_trace(of, MACHINE, path)
    assert len(found) == 6
    assert found[0].seconds > found[1].seconds
    assert len(simulate_trace(of, MACHINE, path, most=2)) == 2
    with pytest.raises(TraceError, match="of 16 experts"):
        simulate_trace(replace(of, layer=replace(LAYER, experts=8)), MACHINE, path)
    path.write_text("{}\n")
    with pytest.raises(TraceError):
        simulate_trace(of, MACHINE, path)


def test_hundreds_of_devices() -> None:
    mesh = Mesh("M", (Axis("node", 32), Axis("gpu", 8)))
    load = Load(64.0, Choices((1 / 256,) * 256, 8), Held.of([[e] for e in range(256)]))
    wiring = WIRINGS["two axes"]
    for chosen in (Options(chunks=2, deduplicate=True), Options(hierarchical=True, deduplicate=True)):
        of = Demand(forward(wiring, chosen), wiring, mesh, LAYER, load)
        assert simulate(of, MACHINE).seconds == pytest.approx(predict(of, MACHINE).seconds, rel=1e-3)
