"""On what a new build is tried, and how often, with builds whose kernels only say what they were given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import torch

from moec.artifact.allowed import CACHED_BYTES
from moec.artifact.specialisation import Specialisation
from moec.runtime.adapt.published import Build
from moec.runtime.adapt.recording import Recording
from moec.runtime.adapt.validation import Validation, validate
from moec.runtime.native import Kernel

FEW = Specialisation("few", tokens=(1, 16))


@dataclass
class Doubling:
    """Kernels of a layer that doubles its input, wrongly from row `wrong_from` of a batch on."""

    wrong_from: int | None = None
    batches: list[torch.Tensor] = field(default_factory=list)
    outputs: tuple[tuple[tuple[int, ...], torch.dtype], ...] = (((1,), torch.float32),)
    unobserved: tuple[None, ...] = ()

    def workspace_bytes(self, tokens: int, threads: int) -> int:
        return 64

    def run(self, threads: int, packed: Any, workspace: Any, x: torch.Tensor, y: torch.Tensor) -> None:
        self.batches.append(x)
        torch.mul(x, 2.0, out=y)
        if self.wrong_from is not None:
            y[self.wrong_from :] += 1.0


def build(kernel: Doubling, packed: torch.Tensor) -> Build:
    return Build("a build", 1, cast(Kernel, kernel), packed)


def rows(count: int) -> Recording:
    recording = Recording()
    recording.seen([torch.arange(float(count)).reshape(count, 1)], 0)
    return recording


def tried(
    new: Doubling, sizes: tuple[int, ...], specialisation: Specialisation = FEW, nbytes: int = 64, **given: float
) -> Validation:
    packed = torch.empty(nbytes, dtype=torch.uint8)
    base = build(Doubling(), packed)
    return validate(base, base, build(new, packed), rows(300), specialisation, sizes, **given)


@pytest.mark.parametrize(("nbytes", "most"), [(CACHED_BYTES, 256), (CACHED_BYTES + 1, 64)])
def test_batches_are_cut_and_none_is_tried_twice(nbytes: int, most: int) -> None:
    new = Doubling()
    found = tried(new, (17, 5000, 4000), nbytes=nbytes)
    assert [len(x) for x in new.batches] == [17, most]
    assert (found.identical, found.wrong, found.tokens) == (True, None, most)


def test_the_last_size_is_timed_though_it_came_before() -> None:
    new = Doubling()
    assert tried(new, (4, 1000, 4)).tokens == 4
    assert [len(x) for x in new.batches] == [256, 4]


def test_batches_are_uneven_where_nothing_is_dropped() -> None:
    new = Doubling()
    tried(new, (6,))
    assert new.batches[0].flatten().tolist() == [0, 1, 1, 2, 2, 2]


def test_batches_are_those_of_calls_where_something_may_be_dropped() -> None:
    new = Doubling()
    tried(new, (6,), Specialisation("wide", capacity=2.0))
    assert new.batches[0].flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_a_copy_of_the_weights_is_tried_on_many_rows() -> None:
    base, new = Doubling(), Doubling()
    old = build(base, torch.empty(64, dtype=torch.uint8))
    validate(old, old, build(new, torch.empty(64, dtype=torch.uint8)), rows(300), FEW, (6,))
    assert new.batches[0].flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_other_bits_in_the_last_row_are_found() -> None:
    found = tried(Doubling(wrong_from=63), (1, 64), least_gain=1e9)
    assert not found.identical
    assert found.wrong is not None
    assert "other bits" in found.wrong


def test_what_seems_to_be_slow_is_timed_again() -> None:
    new = Doubling()
    tried(new, (1, 4), least_gain=1e9)
    assert len(new.batches) > 3
    assert {len(x) for x in new.batches[2:]} == {4}
    once = Doubling()
    tried(once, (1, 4))
    assert len(once.batches) == 2


def test_the_speed_is_that_beside_what_runs_and_the_bits_those_of_the_base() -> None:
    packed = torch.empty(64, dtype=torch.uint8)
    base, old, new = Doubling(), Doubling(wrong_from=0), Doubling()
    found = validate(build(base, packed), build(old, packed), build(new, packed), rows(300), FEW, (1, 4))
    assert found.identical
    assert [len(x) for x in old.batches] == [4]
