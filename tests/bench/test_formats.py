"""Sizes of formats, and the codes and scales that routes are given."""

from __future__ import annotations

import pytest
import torch

from bench.formats import FORMATS
from bench.quantise import grouped, per_channel


def test_bytes_of_a_matrix() -> None:
    sizes = {name: format.matrix_bytes(10, 64) for name, format in FORMATS.items()}
    assert sizes == {"bf16": 1280, "f32": 2560, "int8": 640 + 40, "int4": 320 + 10 * 2 * 2, "ternary": 160 + 40}


@pytest.mark.parametrize(("group", "largest"), [(32, 7), (64, 127)])
def test_codes_times_scales_are_near_the_weights(group: int, largest: int) -> None:
    w = torch.randn(2, 5, 64)
    w[0, 0, :group] = 0  # a group without a scale
    codes, scales = grouped(w.bfloat16(), group, largest)
    assert codes.dtype == torch.int8
    assert codes.abs().max() == largest
    near = (codes.view(2, 5, -1, group) * scales.unsqueeze(-1)).view(2, 5, 64)
    half = scales.repeat_interleave(group, -1) / 2
    assert ((near - w.bfloat16().float()).abs() <= half * 1.001 + 1e-12).all()


def test_a_channel_is_a_group() -> None:
    w = torch.randn(2, 5, 64)
    codes, scales = per_channel(w)
    assert scales.shape == (2, 5)
    torch.testing.assert_close(scales, w.abs().amax(-1) / 127)
    torch.testing.assert_close(codes, (w / scales.unsqueeze(-1)).round().to(torch.int8))
