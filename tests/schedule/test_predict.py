"""Predicted times, against ones worked out by hand; the choice among schedules; files of machines."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moec.schedule.build import BLOCKING, Options, forward
from moec.schedule.choose import Allowed, Choice, Chooser
from moec.schedule.demand import Demand, Held, Load
from moec.schedule.machine import Cost, Layer, Link, Machine, fit, guess, measure
from moec.schedule.mesh import Axis, Mesh
from moec.schedule.predict import Prediction, predict
from moec.schedule.routing import Choices
from moec.schedule.steps import Wiring
from tests.schedule.wirings import WIRINGS

POD = Mesh("Pod", (Axis("node", 2), Axis("gpu", 2)))
LAYER = Layer(4, 1, x=8, y=8, row=88, result=100, sum=100, gradient=100, expert_flops=1.0, expert_bytes=1.0,
              route_flops=1.0, route_bytes=1.0, shared_flops=1.0, shared_bytes=1.0)  # fmt: skip
LOAD = Load(40.0, Choices((0.25,) * 4, 1), Held.of([[0], [1], [2], [3]]))
MACHINE = Machine(
    route=Cost(1.0, 0.0, 0.0), experts=Cost(0.0, 0.5, 0.0), shared=Cost(7.0, 0.0, 0.0), collect=Cost(2.0, 0.0, 0.0),
    copy=0.0, step=0.25, message=0.0, processor=0.0, handling=0.0,
    links={"node": Link(400.0, 0.5), "gpu": Link(1e9, 0.0)},
)  # fmt: skip


def predicted(options: Options, wiring: Wiring = WIRINGS["two axes"], load: Load = LOAD) -> Prediction:
    return predict(Demand(forward(wiring, options), wiring, POD, LAYER, load), MACHINE)


def test_a_blocking_exchange_adds_up() -> None:
    """40 tokens a rank, 10 to each; 2 ranks of a node send 2 * 10 rows of 100 bytes each over its 400 bytes/s."""
    found = predicted(BLOCKING)
    counts = 16 * 4 * 2 * 2 / 4 / 400 * 4  # 16 bytes to each of 4 positions, of which 2 beyond the link, from 2 ranks
    assert found.phases == pytest.approx(
        {"route": 1, "counts": found.phases["counts"], "pack": 0.25, "dispatch": 10.5, "experts": 20, "combine": 10.5,
         "shared": 7, "collect": 2}
    )  # fmt: skip
    assert 0.5 < found.phases["counts"] < 0.5 + counts
    assert found.seconds == pytest.approx(1 + found.phases["counts"] + 10.5 + 20 + 10.5 + 7 + 2)
    assert found.bytes["node"] == pytest.approx(4000 + 4000 + (found.phases["counts"] - 0.5) * 400)
    assert found.alone == pytest.approx(found.phases["counts"] - 0.25 + 10.5 + 10.5)


def test_chunks_hide_what_they_can() -> None:
    found = predicted(Options(chunks=2, deduplicate=True, shared="dispatch"), load=LOAD)
    spans = {span.step: span for span in found.spans}
    assert spans["experts.0"].begin == pytest.approx(max(spans["dispatch.0"].end, spans["shared"].end))
    assert spans["experts.1"].begin == pytest.approx(max(spans["dispatch.1"].end, spans["experts.0"].end))
    assert spans["combine.1"].begin == pytest.approx(max(spans["combine.0"].end, spans["experts.1"].end))
    assert found.seconds < predicted(BLOCKING).seconds


def test_all_wait_for_the_rank_that_has_most() -> None:
    skewed = replace(LOAD, choices=Choices((0.7, 0.1, 0.1, 0.1), 1))
    spans = {span.step: span for span in predicted(BLOCKING, load=skewed).spans}
    assert spans["combine.0"].begin - spans["dispatch.0"].end == pytest.approx(0.7 * 160 * 0.5)


def chosen(machine: Machine, allowed: Allowed, mesh: Mesh = POD, wiring: Wiring = WIRINGS["two axes"]) -> Choice:
    return Chooser(wiring, mesh, LAYER, LOAD, machine, allowed).choose()


BOTH = Allowed(("dispatch", "combine"), with_shared=True)


def test_the_fastest_is_chosen_and_the_others_are_explained() -> None:
    choice = chosen(MACHINE, BOTH)
    assert choice.chosen.options.chunks > 1
    assert choice.gain > 1.3
    assert choice.schedules.forward.chunks == choice.chosen.options.chunks
    assert len(choice.rejected) >= 4
    assert all(one.seconds >= choice.chosen.seconds * 0.99 for one in choice.rejected)
    assert any("slower" in one.why for one in choice.rejected)
    assert [one.what for one in choice.inapplicable] == ["rows of lower dimension"]


def test_what_the_layout_says_is_kept() -> None:
    fixed = chosen(MACHINE, replace(BOTH, chunks=3)).chosen.options
    assert fixed.chunks == 3
    nothing = chosen(MACHINE, Allowed()).chosen.options
    assert (nothing.chunks, nothing.shared) == (1, "last")
    trained = chosen(MACHINE, replace(BOTH, training=True))
    assert trained.schedules.backward is not None
    assert trained.chosen.backward is not None
    assert (trained.chosen.options.split, trained.chosen.options.local_first) == ("experts", False)


def test_steps_that_cost_much_are_few() -> None:
    slow = replace(MACHINE, step=10.0, links={axis: Link(1e9, 10.0) for axis in MACHINE.links})
    assert chosen(slow, BOTH).chosen.options.chunks == 1


def test_many_small_messages_make_it_hierarchical() -> None:
    wide = Mesh("Wide", (Axis("node", 8), Axis("gpu", 8)))
    held = Held.of([[p] for p in range(64)])
    layer = replace(LAYER, experts=64, slots=8)
    load = Load(40.0, Choices((1 / 64,) * 64, 8), held)
    machine = replace(MACHINE, message=0.5, links={"node": Link(1e4, 0.5), "gpu": Link(1e9, 0.0)})
    choice = Chooser(WIRINGS["two axes"], wide, layer, load, machine, BOTH).choose()
    assert choice.chosen.options.hierarchical
    direct = next(one for one in choice.rejected if not one.options.hierarchical)
    assert "more over node" in direct.why


def test_what_does_not_fit_is_rejected_for_its_memory() -> None:
    three = replace(BOTH, chunks=3)
    needs = chosen(MACHINE, three).chosen.memory
    small = replace(POD, memory=int(needs) - 1)
    choice = chosen(MACHINE, three, small)
    assert choice.chosen.memory < needs
    assert any("a device has" in one.why for one in choice.rejected)
    tiny = replace(POD, memory=1)
    assert "needs the least memory" in chosen(MACHINE, three, tiny).chosen.why


def test_chunks_of_hot_experts_are_tried_in_another_order() -> None:
    held = Held.of([[e // 4] for e in range(16)])
    shares = tuple(np.tile([0.1, 0.1, 0.02, 0.03], 4))
    load = Load(40.0, Choices(shares, 1), held)
    numbered = Chooser(
        WIRINGS["two axes"], POD, replace(LAYER, experts=16), load, MACHINE, replace(BOTH, numbered=True)
    )
    assert {options.order for options in numbered.options()} > {None, (1, 0)}
    assert all(o.order is None for o in replace(numbered, allowed=BOTH).options())


def test_what_other_systems_do_is_named() -> None:
    found = {one.what: one.why for one in chosen(MACHINE, BOTH, wiring=WIRINGS["same tokens"]).inapplicable}
    assert "1/2 of them" in found["sending tensor-parallel duplicates"]
    flat = Mesh("Flat", (Axis("gpu", 4),))
    found = {one.what: one.why for one in chosen(MACHINE, BOTH, flat, WIRINGS["flat"]).inapplicable}
    assert "hierarchical exchange" in found


def test_a_machine_is_guessed_from_its_mesh() -> None:
    mesh = Mesh("M", (Axis("gpu", 2, 1e6, 1e-3),), None, 1e12)
    found = guess(replace(LAYER, expert_flops=2e12), mesh)
    assert found.experts.row == 2.0
    assert found.links == {"gpu": Link(1e6, 1e-3)}
    assert not found.measured


def test_machine_files_come_back(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    path.write_text(MACHINE.to_json())
    assert Machine.read(path) == MACHINE
    data = json.loads(MACHINE.to_json())
    for wrong in (data | {"moec_machine": 2}, data | {"copy": -1.0}, data | {"more": 1}, data | {"route": {}}, []):
        path.write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match="machine file"):
            Machine.read(path)


def test_costs_are_fitted_to_runs() -> None:
    def run(rows: int) -> float:
        return 0.1 + 4 * max(rows / 4 * 0.01, 0.5)

    found = measure(run, (4, 1000, 2000), parts=4)
    assert (found.fixed, found.row, found.weights) == pytest.approx((0.1, 0.01, 0.5))
    with pytest.raises(ValueError, match="at least two"):
        fit([1.0], [4], 1)


def test_costs_are_fitted_to_all_runs_but_the_shortest() -> None:
    """A line through what scatters by as much upwards as downwards; neither part of it below 0."""
    around = fit([9.0, 0.1 + 1.0 * 1.01, 0.1 + 2.0 * 0.98, 0.1 + 4.0 * 1.01], [4, 100, 200, 400], 4)
    assert (around.fixed, around.row) == pytest.approx((0.1, 0.01), rel=0.2)
    below = fit([0.1, 0.9, 2.0], [4, 100, 200], 4)
    assert below.fixed == 0.0
    assert 0.009 < below.row < 0.01
    assert fit([0.1, 2.0, 1.0], [4, 100, 200], 4).row == 0.0


def test_messages_take_compute_away() -> None:
    """Of the experts of a chunk while another one's rows travel: 3 messages out and 3 in, of any length."""
    of = Demand(forward(WIRINGS["two axes"], Options(chunks=2)), WIRINGS["two axes"], POD, LAYER, LOAD)
    usual, busy = (predict(of, replace(MACHINE, handling=each)) for each in (0.0, 0.125))
    before, after = ({one.step: one.end - one.begin for one in found.spans} for found in (usual, busy))
    assert after["experts.0"] == pytest.approx(before["experts.0"] + 2 * 3 * 0.125)
    assert busy.seconds > usual.seconds
