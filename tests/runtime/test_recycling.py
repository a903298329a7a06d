"""Memory of dropped tensors goes to the next ones, and never while something uses it."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from moec.runtime.memory import HUGE_PAGE
from moec.runtime.recycling import RecyclingPool

LARGE = (1024, 2048)  # 8 MiB of f32


@pytest.fixture
def pool() -> RecyclingPool:
    return RecyclingPool()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32])
@pytest.mark.parametrize("shape", [(), (0, 5), (3,), (1024, 4096), (2**22 + 3,)])
def test_form(pool: RecyclingPool, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = pool.empty(shape, dtype)
    assert (tensor.shape, tensor.dtype, tensor.is_contiguous()) == (shape, dtype, True)
    assert tensor.nbytes < 2 * HUGE_PAGE or tensor.data_ptr() % HUGE_PAGE == 0
    tensor.fill_(1)


def test_memory_is_used_again(pool: RecyclingPool) -> None:
    place = pool.empty(LARGE, torch.float32).fill_(1).data_ptr()
    again = pool.empty(LARGE, torch.float32)
    assert again.data_ptr() == place
    assert pool.empty(LARGE, torch.float32).data_ptr() != place
    assert pool.release() >= 8 * 2**20, "the third tensor is gone, the second is in use"
    assert pool.release() == 0


def test_a_view_or_a_gradient_keeps_it(pool: RecyclingPool) -> None:
    parameter = torch.nn.Parameter(torch.zeros(LARGE))
    (parameter * 1).backward(pool.empty(LARGE, torch.float32).fill_(2))
    view = pool.empty(LARGE, torch.float32).fill_(3)[5:7, ::2]
    copied = copy.deepcopy(view)
    for _ in range(3):
        pool.empty(LARGE, torch.float32).fill_(4)
    assert torch.equal(view, copied)
    assert (parameter.grad == 2).all()


def test_the_best_fit(pool: RecyclingPool) -> None:
    tensors = [pool.empty((rows, 2048), torch.float32) for rows in (4096, 1024, 1100)]
    places = [tensor.data_ptr() for tensor in tensors]
    del tensors
    assert pool.empty((1050, 2048), torch.float32).data_ptr() == places[2]
    assert pool.empty((600, 2048), torch.float32).data_ptr() == places[1]
    assert pool.empty((3000, 2048), torch.float32).data_ptr() == places[0]
    assert pool.empty((5000, 2048), torch.float32).data_ptr() not in places


def test_what_nobody_takes_is_dropped(pool: RecyclingPool) -> None:
    del [pool.empty((16384, 2048), torch.float32)][0]
    for _ in range(2000):
        pool.empty(LARGE, torch.float32)
    assert pool.release() < 16 * 2**20


def test_several_threads(pool: RecyclingPool) -> None:
    def work(value: int) -> bool:
        found = True
        for _ in range(20):
            tensor = pool.empty((512, 2048 + value), torch.float32).fill_(value)
            found &= bool((tensor == value).all())
        return found

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(16)))
