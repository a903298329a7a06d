"""Random layouts with random schedules on real ranks, beside one process."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from moec.artifact.parallel import SEND_BYTES, Sends
from moec.schedule.build import LOCAL_AT, SHARED_AT, Options, both
from moec.schedule.steps import SPLITS
from tests.parallel.ranks import run
from tests.parallel.reference import Small
from tests.parallel.test_forward import Case, on_rank

MESHES = (
    (("node", 2), ("gpu", 2)),
    (("gpu", 4),),
    (("pod", 2), ("node", 1), ("gpu", 2)),
)
CASES = 40
COARSE = {None: 0.0, "bf16": 1.0, "int8": 2.0, "fp8_e4m3": 12.0}
"""What rounding changes at most in sums of terms that are about 100."""


def some(rng: random.Random, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if rng.random() < 0.6)


def drawn(rng: random.Random) -> Case:
    """A case that can be scheduled."""
    while True:
        axes = rng.choice(MESHES)
        names = [name for name, _ in axes]
        ep = some(rng, names)
        small = Small(
            experts=rng.choice([5, 6, 9]),
            slots=rng.choice([1, 2, 3, 5]),
            columns=rng.choice([2, 7, 8, 33]),
            dtype=rng.choice([torch.float32, torch.bfloat16]),
            shared=rng.random() < 0.5,
            capacity=rng.choice([None, None, 1, 4]),
        )
        chunks = rng.choice([1, 1, 2, 3, 4])
        options = Options(
            split=rng.choice(SPLITS),
            chunks=chunks,
            hierarchical=rng.random() < 0.4,
            deduplicate=rng.random() < 0.7,
            local_first=rng.random() < 0.4,
            local=rng.choice(LOCAL_AT),
            overlap=rng.choice([(), ("dispatch",), ("combine",), ("dispatch", "combine")]),
            shared=rng.choice(SHARED_AT),
        )
        if options.overlap == ("dispatch", "combine"):
            options = replace(options, buffers=rng.choice([None, rng.randint(1, chunks)]))
        kinds = [None, None, *SEND_BYTES]
        case = Case(
            small=small,
            axes=axes,
            tokens=some(rng, names),
            ep=ep,
            tp=some(rng, [name for name in names if name not in ep]) if rng.random() < 0.4 else (),
            shared_tp=some(rng, names) if small.shared and rng.random() < 0.4 else (),
            options=options,
            partial=rng.choice(ep) if ep and rng.random() < 0.3 else None,
            sends=Sends(rng.choice(kinds), rng.choice(kinds)) if rng.random() < 0.3 else Sends(),
            copies=rng.choice([1, 1, 2, 3]),
        )
        try:
            both(case.wiring, case.options, False)
        except ValueError:
            continue
        return case


def cases(seed: int) -> dict[str, Case]:
    rng = random.Random(seed)
    return {str(number): drawn(rng) for number in range(CASES)}


def on_ranks(seed: int) -> dict[str, list[list[torch.Tensor]]]:
    return on_rank(cases(seed))


def bound(case: Case) -> float:
    """The largest error that is allowed."""
    if not (case.tp or case.shared_tp or case.partial or case.sends != Sends()):
        return 0.0
    rounding = 1.0 if case.small.dtype is torch.bfloat16 else 0.001
    return rounding + COARSE[case.sends.dispatch] + COARSE[case.sends.combine]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_any_layout_with_any_schedule(seed: int) -> None:
    ranks = run(on_ranks, 4, seed, timeout=400.0)
    for name, case in cases(seed).items():
        for found in ranks:
            for ours, expected in found[name]:
                error = float((ours.double() - expected.double()).abs().max()) if len(ours) else 0.0
                assert error <= bound(case), case
