"""Which parameters lie behind each other on a device."""

from __future__ import annotations

import pytest
from torch_mlir import ir

from moec.backends.base import Unsupported
from moec.backends.cuda.stacks import all_stacks
from moec.dialect import context

BYTES = (16, 16, 24, 16)


@pytest.fixture
def function() -> ir.Operation:
    with context(), ir.Location.unknown():
        return ir.Module.parse("func.func @L() { return }").body.operations[0].operation


def test_a_parameter_of_a_stack_may_be_read_alone(function: ir.Operation) -> None:
    assert all_stacks([[(0, 1), (2,)], [(1,), (0, 1)], [(3,)]], BYTES, function) == ((0, 1), (1,), (2,), (3,))


def test_a_parameter_has_one_place(function: ir.Operation) -> None:
    with pytest.raises(Unsupported, match="stacked with different ones in two places"):
        all_stacks([[(0, 1)], [(1, 2)]], BYTES, function)


def test_what_is_read_alone_is_aligned(function: ir.Operation) -> None:
    assert all_stacks([[(2, 3)], [(2,)]], BYTES, function) == ((2,), (2, 3))
    with pytest.raises(Unsupported, match="not aligned to 16 bytes"):
        all_stacks([[(2, 3)], [(3,)]], BYTES, function)
