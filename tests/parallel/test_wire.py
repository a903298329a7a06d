"""Rounding rows for the wire: bounded errors, row by row."""

from __future__ import annotations

import pytest
import torch

from moec.runtime.parallel.wire import Wire

ERROR = {"bf16": 2**-8, "int8": 0.5 / 127, "fp8_e4m3": 2**-4}
"""Largest difference, over the largest element of a row (of the element itself for bf16 and fp8, which is less)."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["bf16", "int8", "fp8_e4m3"])
@pytest.mark.parametrize("columns", [1, 7, 64])
def test_rows_come_back_nearly(kind: str, dtype: torch.dtype, columns: int) -> None:
    torch.manual_seed(columns)
    wire = Wire(columns, dtype, kind)
    rows = (torch.randn(50, columns) * torch.logspace(-30, 30, 50)[:, None]).to(dtype)
    sent = wire.encode(rows)
    assert sent.shape == (50, wire.width)
    assert sent.dtype is wire.carrier
    assert wire.row_bytes == sent.shape[1] * sent.element_size()
    difference = (wire.decode(sent).double() - rows.double()).abs().amax(1)
    rounding = 2**-8 if dtype is torch.bfloat16 else 2**-23
    assert (difference <= (ERROR[kind] + rounding) * 1.01 * rows.double().abs().amax(1)).all()


@pytest.mark.parametrize("kind", [None, "bf16"])
def test_rows_that_are_as_they_travel_are_not_touched(kind: str | None) -> None:
    wire, rows = Wire(3, torch.bfloat16, kind), torch.randn(2, 3).bfloat16()
    assert wire.plain
    assert wire.encode(rows) is rows
    assert wire.decode(rows) is rows


@pytest.mark.parametrize("kind", ["int8", "fp8_e4m3"])
def test_what_is_not_finite_stays_in_its_row(kind: str) -> None:
    rows = torch.ones(5, 8)
    rows[0] = 0
    rows[1, 2] = torch.nan
    rows[2, 3] = torch.inf
    rows[3] = torch.tensor([1e-45] + [0.0] * 7)
    wire = Wire(8, torch.float32, kind)
    back = wire.decode(wire.encode(rows))
    assert torch.equal(back[[0, 4]], rows[[0, 4]])
    assert not back[1].isfinite().all()
    assert not back[2].isfinite().all()
    assert back[3].isfinite().all()
    assert wire.decode(wire.encode(rows[:0])).shape == (0, 8)


def test_every_number_of_fp8_is_decoded_as_torch_does() -> None:
    codes = torch.tensor([code for code in range(256) if code & 0x7F != 0x7F], dtype=torch.uint8)  # the others are NaN
    rows = torch.zeros(1, 4 + len(codes) + 2, dtype=torch.uint8)
    rows[0, :4] = torch.ones(1).view(torch.uint8)
    rows[0, 4 : 4 + len(codes)] = codes
    back = Wire(len(codes), torch.float32, "fp8_e4m3").decode(rows)
    assert torch.equal(back[0], codes.view(torch.float8_e4m3fn).float())
