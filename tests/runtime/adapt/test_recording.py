"""Rows of real calls, over and over."""

from __future__ import annotations

import pytest
import torch

from moec.runtime.adapt.recording import Recording


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_batches_repeat_the_rows_that_were_seen(dtype: torch.dtype) -> None:
    recording = Recording(most_rows=5)
    x, ids = torch.randn(4, 3, 2).to(dtype), torch.arange(4, dtype=torch.int32)
    recording.seen([x, ids], 0)
    recording.seen([x[:0], ids[:0]], 0)
    assert not recording.full
    recording.seen([x + 1, ids + 10], 0)
    recording.seen([x + 2, ids + 20], 0)
    assert recording.full
    assert recording.count == 5
    want = torch.cat([x, (x + 1)[:1]])
    for tokens in (0, 1, 5, 12):
        rows, numbers = recording.batch(tokens)
        order = [i % 5 for i in range(tokens)]
        assert torch.equal(rows, want[order])
        assert rows.dtype is dtype
        assert numbers.tolist() == [[0, 1, 2, 3, 10][i] for i in order]


def test_what_is_kept_is_bounded_and_its_own() -> None:
    recording = Recording(most_bytes=1000)
    x = torch.zeros(100, 25)
    recording.seen([x], 0)
    assert recording.count == 10
    x.fill_(1.0)
    recording.seen([x], 0)
    assert recording.full
    assert not recording.batch(10)[0].any()


def test_a_row_larger_than_the_bound() -> None:
    recording = Recording(most_bytes=10)
    recording.seen([torch.ones(3, 100)], 0)
    assert recording.count == 1


def test_tensors_that_require_gradients() -> None:
    recording = Recording()
    recording.seen([torch.ones(2, 2, requires_grad=True)], 0)
    assert torch.equal(recording.batch(3)[0], torch.ones(3, 2))


@pytest.mark.parametrize(
    ("tokens", "times"),
    [(0, []), (1, [1]), (2, [2]), (3, [1, 2]), (6, [1, 2, 3]), (8, [1, 2, 5]), (64, [*range(1, 10), 19])],
)
def test_uneven_batches_hold_rows_once_twice_and_so_on(tokens: int, times: list[int]) -> None:
    recording = Recording()
    recording.seen([torch.arange(20.0).reshape(20, 1)], 0)
    rows = recording.batch(tokens, uneven=True)[0].flatten().tolist()
    assert rows == [float(row) for row, count in enumerate(times) for _ in range(count)]


def test_uneven_batches_of_few_recorded_rows() -> None:
    recording = Recording()
    recording.seen([torch.arange(2.0).reshape(2, 1)], 0)
    assert recording.batch(7, uneven=True)[0].flatten().tolist() == [0, 1, 1, 0, 0, 0, 0]
