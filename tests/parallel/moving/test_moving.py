"""Experts that move between real ranks while steps go on: the same bits, and all ranks change at the same step."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import weakref
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist

from moec.errors import PlacementError, WeightsError
from moec.journal import Other, Planned, Reading, Start, Tables, Travelled
from moec.placement.problem import Placement
from moec.placement.table import Table
from moec.runtime.adapt.journal import Journal
from moec.runtime.parallel.moving.gate import Swapped
from moec.runtime.parallel.moving.memory import Pieces
from moec.runtime.parallel.moving.moving import Moving
from moec.runtime.parallel.moving.rules import Pinned, Rules
from tests.parallel.moving.tensors import TensorSlots
from tests.parallel.moving.toy import FAST, Toy, alive, random_table, run_until, start
from tests.parallel.ranks import run
from tests.parallel.test_streams import ends

pytestmark = pytest.mark.long

Made = list[tuple[int, int, int]]


def first_table(experts: int, positions: int, slots: int) -> Table:
    return Table.first(Placement.contiguous(experts, positions), slots, (positions,))


def moves_at_random(experts: int, slots: int, moves: int) -> Made:
    ranks = dist.get_world_size()
    toy = Toy(first_table(experts, ranks, slots))
    versions: Made = []
    random = np.random.default_rng(slots)
    with start([toy]) as moving:
        for _ in range(moves):
            future: Future[Swapped] | None = None
            if moving.leads:
                future = moving.move([random_table(random, moving.tables[0])])
            versions += run_until(toy, moving, lambda f=future: f.done())  # type: ignore[misc]
            if future is not None:
                future.result()
        assert moving.tables[0] == moving.gate.active.tables[0]
    assert not alive("moec-moving")
    return versions


def dropped(later: int) -> None:
    """The handle and the layer go without `stop`, on one rank before the other."""
    toy = Toy(first_table(4, 2, 2))
    moving = start([toy])
    run_until(toy, moving, lambda gate=moving.gate: gate.step > 3)  # type: ignore[misc]
    left = weakref.ref(moving), weakref.ref(toy)
    time.sleep(0.1 * (toy.rank == later))
    del toy, moving
    assert ends(lambda: not any(one() is not None for one in left) and not alive("moec-moving"))


@pytest.mark.parametrize("later", [0, 1])
def test_what_is_dropped_takes_its_thread_along(later: int) -> None:
    run(dropped, 2, later)


def moves_without_one() -> str:
    """The leader is asked to move when the other rank has dropped what moves its experts."""
    toy = Toy(first_table(4, 2, 2))
    moving = start([toy])
    run_until(toy, moving, lambda gate=moving.gate: gate.step > 3)  # type: ignore[misc]
    if not moving.leads:
        del moving
        assert ends(lambda: not alive("moec-moving"))
        return ""
    time.sleep(0.1)
    asked = moving.move([random_table(np.random.default_rng(0), moving.tables[0])])
    with pytest.raises(PlacementError) as found:
        asked.result(timeout=60.0)
    assert ends(lambda: not moving.running)
    return str(found.value)


def test_a_rank_that_has_dropped_it_keeps_nobody_waiting() -> None:
    assert "experts" in run(moves_without_one, 2)[0]


@pytest.mark.parametrize(("experts", "slots"), [(6, 3), (7, 7), (4, 2)])
def test_moves_change_no_bit_and_take_force_at_the_same_step(experts: int, slots: int) -> None:
    """With slots to spare and with none, so that experts exchange their places."""
    found = run(moves_at_random, 3 if experts > 4 else 2, experts, slots, 6)
    assert all(versions == found[0] for versions in found)
    assert found[0][-1][1] == 6
    assert sorted(found[0]) == found[0]


class OtherForm(TensorSlots):
    """Ranks of odd numbers lay weights out in another order."""

    @property
    def form(self) -> str:
        return f"{dist.get_rank() % 2:016}"

    def ordinary(self, slot: int) -> Pieces:
        return tuple(piece.flip(0) for piece in super().pieces(slot))

    def formed(self, ordinary: Pieces) -> Pieces:
        return tuple(piece.flip(0) for piece in ordinary)


def moves_between_forms() -> Made:
    toy = Toy(first_table(4, 2, 3), memory=OtherForm)
    with start([toy]) as moving:
        versions = []
        for holders in ([[1], [0], [1], [0]], [[0], [0, 1], [1], [1]]):
            future = moving.move([moving.tables[0].following(Placement.even(holders))]) if moving.leads else None
            versions += run_until(toy, moving, lambda f=future: f.done())  # type: ignore[misc]
    return versions


def test_ordinary_weights_travel_between_ranks_of_other_forms() -> None:
    found = run(moves_between_forms, 2)
    assert found[0] == found[1]
    assert found[0][-1][1] == 2


class Broken(TensorSlots):
    """Rank 1 cannot read its slot 0."""

    def pieces(self, slot: int) -> Pieces:
        if dist.get_rank() == 1 and slot == 0 and self.broken:
            raise WeightsError("it is torn")
        return super().pieces(slot)

    broken = False


def fails_and_goes_on() -> tuple[Made, str]:
    toy = Toy(first_table(4, 2, 3), memory=Broken)
    with start([toy]) as moving:
        Broken.broken = True
        table = moving.tables[0].following(Placement.even([[0], [1], [0], [0, 1]]))
        future = moving.move([table]) if moving.leads else None
        versions = run_until(toy, moving, lambda: future.done())  # type: ignore[union-attr]
        why = str(future.exception()) if future else ""
        Broken.broken = False
        dist.barrier()  # else the second try may come before it is whole on the other rank
        future = moving.move([table]) if moving.leads else None
        versions += run_until(toy, moving, lambda: future.done())  # type: ignore[union-attr]
        return versions, why


def test_what_cannot_travel_leaves_all_tables_as_they_are() -> None:
    (versions, why), (others, _) = run(fails_and_goes_on, 2)
    assert "rank 1 could not" in why
    assert versions == others
    assert versions[-1][1] == 1  # the second try


def asked_for_nonsense() -> None:
    toy = Toy(first_table(4, 2, 2))
    with start([toy]) as moving:
        if not moving.leads:
            with pytest.raises(PlacementError, match="only the rank that leads"):
                moving.move(moving.tables)
        wrong = [first_table(4, 2, 3), first_table(3, 2, 2), first_table(4, 3, 2)]
        for table in wrong:
            future = moving.move([table]) if moving.leads else None
            made = run_until(toy, moving, lambda f=future: f.done())  # type: ignore[misc]
            assert {version for _, version, _ in made} == {0}
            if future is not None:
                with pytest.raises(PlacementError, match=r"does not fit|has 4 experts"):
                    future.result()
        dist.barrier()
    if moving.leads:
        with pytest.raises(PlacementError, match="it was stopped"):
            moving.move(moving.tables).result()


def test_tables_that_do_not_fit_are_refused_by_all() -> None:
    run(asked_for_nonsense, 2)


def pauses(seconds: float, limit: float) -> tuple[float, int]:
    """A pause that is longer than any step may wait."""
    toy = Toy(first_table(4, 2, 3))
    with start([toy], replace(FAST, timeout=limit)) as moving:
        moving.throttle.pause()
        begin = time.monotonic()
        threading.Timer(seconds, moving.throttle.resume).start()
        future = (
            moving.move([moving.tables[0].following(Placement.even([[1], [0], [0], [1]]))]) if moving.leads else None
        )

        versions = run_until(toy, moving, lambda: future.done())  # type: ignore[union-attr]
        return time.monotonic() - begin, versions[-1][1]


def test_a_pause_lasts_as_long_as_it_is_wanted() -> None:
    for took, version in run(pauses, 2, 8.0, 5.0):
        assert took > 8.0
        assert version == 1


def dies_while_moving(victim: int) -> tuple[int, bool]:
    toy = Toy(first_table(6, 3, 3))
    moving = start([toy], replace(FAST, piece=4, rate=40.0, timeout=20.0))  # an expert takes 6 s
    if moving.leads:
        moving.move([moving.tables[0].following(Placement.even([[1], [2], [0], [0], [1], [2]]))])
    run_until(toy, moving, lambda: moving._mover._carrier.sent > 0)
    if toy.rank == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    moving._thread.join(150)
    return moving.begin().version, moving.running


@pytest.mark.parametrize("victim", [0, 2])
def test_a_rank_that_dies_leaves_the_old_tables(victim: int) -> None:
    found = run(dies_while_moving, 3, victim, gone=[victim])
    assert [each for rank, each in enumerate(found) if rank != victim] == [(0, False)] * 2


def follows_its_load(folder: str) -> tuple[Made, list[list[int]]]:
    """Tokens choose among experts of the first rank alone."""
    path = Path(folder) / f"{dist.get_rank()}.jsonl"
    toy = Toy(first_table(6, 2, 4), Rules(most_copies=2, pins=(Pinned((0,), 0, 0),)))
    with Moving([toy.movable], range(2), replace(FAST, look=0.1), Journal(path)) as moving:
        made = run_until(toy, moving, lambda: moving.gate.active.version > 0, hot=3)
    return made, [list(holders) for holders in moving.tables[0].placement.holders]


def test_experts_follow_the_load_by_themselves(tmp_path: Path) -> None:
    (made, holders), other = run(follows_its_load, 2, str(tmp_path))
    assert (made, holders) == other
    assert holders[0] == [0]  # pinned
    assert any(1 in ranks for ranks in holders[1:3])
    events = [[json.loads(line)["event"] for line in (tmp_path / f"{rank}.jsonl").open()] for rank in range(2)]
    assert events[0][0] == events[1][0] == "start"
    assert "plan" in events[0]
    assert "plan" not in events[1]
    read = list(Reading(tmp_path / "0.jsonl"))
    assert {Start, Planned, Travelled, Tables} <= {type(record) for record in read}
    assert not [record for record in read if isinstance(record, Other)], "its reader knows every event"
    for found in events:
        assert found[found.index("travelled") + 1] == "tables"
        assert found[-1] == "stop"
