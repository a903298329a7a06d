"""From two ranks to four and back while steps go on: weights come from ranks, no bit changes, nobody stops."""

from __future__ import annotations

import torch.distributed as dist

from moec.placement.problem import Placement
from moec.placement.table import Table
from tests.parallel.moving.toy import Toy, run_until, start
from tests.parallel.ranks import run

EXPERTS = 6
SIZES = (2, 4, 3, 2, 4)


def scales() -> tuple[list[tuple[int, int, int]], bool]:
    groups = {size: dist.new_group(range(size)) for size in sorted(set(SIZES))}
    toy = Toy(Table.first(Placement.contiguous(EXPERTS, 2), 4, (2,)))
    empty = bool(toy.slots.isnan().all())
    with start([toy]) as moving:
        left = list(SIZES[1:])
        moves = []

        def done() -> bool:
            """One change of size after the other, with some steps between them."""
            if not moves or (moves[-1].done() and moving.gate.step > moves[-1].result().step + 3):
                if not left:
                    return True
                moves.append(moving.rescale(left.pop(0)))
            return False

        made = run_until(toy, moving, done, groups, seconds=180)
    return made, empty


def test_ranks_join_and_leave_between_two_steps() -> None:
    found = run(scales, 4)
    steps = {number: (version, ranks) for number, version, ranks in found[0][0]}
    assert list(steps) == list(range(1, len(steps) + 1))  # no step is left out, none is made twice
    assert list(dict(steps.values()).values()) == list(SIZES)
    for rank, (made, empty) in enumerate(found):
        assert empty == (rank >= 2)  # whoever joins has no weights of its own
        assert {number: (version, ranks) for number, version, ranks in made} == {
            number: (version, ranks) for number, (version, ranks) in steps.items() if rank < ranks
        }
