"""Memory for tests that tells of what is done beside a tensor."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tests.guarded import guarded, guarded_copy


@pytest.mark.parametrize("shape", [(0,), (1,), (7, 3), (4096,), (5000,)])
@pytest.mark.parametrize("alignment", [0, 64])
def test_what_is_written_beside_a_tensor_is_seen(shape: tuple[int, ...], alignment: int) -> None:
    made = guarded(shape, torch.bfloat16, alignment=alignment)
    assert made.tensor.shape == shape
    assert made.intact
    made.tensor.fill_(1.0)
    assert made.intact
    if alignment and made.tensor.numel():
        assert made.tensor.data_ptr() % alignment == 0
    for beside in (made.front, made.rear):
        if beside.numel():
            beside[0] = 0
            assert not made.intact
            beside[0] = 0xA5


def test_a_copy_ends_where_its_page_does() -> None:
    tensor = torch.randn(7, 5)
    copy = guarded_copy(tensor.T)
    assert copy.is_contiguous()
    assert torch.equal(copy, tensor.T)
    assert (copy.data_ptr() + 4 * copy.numel()) % 4096 == 0


def test_reading_behind_a_tensor_ends_the_process() -> None:
    code = (
        "import ctypes, torch; from tests.guarded import guarded\n"
        "made = guarded((5,), torch.float32).tensor\n"
        "ctypes.string_at(made.data_ptr(), 20); print('inside', flush=True)\n"
        "ctypes.string_at(made.data_ptr(), 21); print('behind', flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "inside\n"
    assert done.returncode < 0
