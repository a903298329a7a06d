"""What a variant of a layer may gain is told from how its ordinary code is cut into tiles."""

from __future__ import annotations

import pytest

from moec.artifact.allowed import SIDE_BY_SIDE
from moec.backends.cpu import isa, tiling


@pytest.mark.parametrize("element", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("operands", [1, 2])
def test_whose_panels_lie_side_by_side(element: str, operands: int) -> None:
    """Adaptation expects nothing of wide panels exactly where few rows are multiplied by several panels anyway."""
    for variant in isa.host_variants(integer_rows=True):
        layout = tiling.panels(variant, element, element, operands, (8, 256, 256))
        assert (tiling.side_by_side(variant, layout) > 1) == (variant.name in SIDE_BY_SIDE), variant.name
