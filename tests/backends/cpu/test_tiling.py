"""What a variant of a layer may gain is told from how its ordinary code is cut into tiles."""

from __future__ import annotations

import pytest

from moec.artifact.allowed import SIDE_BY_SIDE
from moec.backends.cpu import isa, tiling
from moec.dialect.formats import Format


@pytest.mark.parametrize("element", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("operands", [1, 2])
def test_whose_panels_lie_side_by_side(element: str, operands: int) -> None:
    """Adaptation expects nothing of wide panels exactly where few rows are multiplied by several panels anyway."""
    for variant in isa.host_variants(integer_rows=True):
        layout = tiling.panels(variant, element, element, operands, (8, 256, 256))
        assert (tiling.side_by_side(variant, layout) > 1) == (variant.name in SIDE_BY_SIDE), variant.name


@pytest.mark.parametrize("rows", ["bf16", "i8"])
@pytest.mark.parametrize("name", ["int8", "int4", "ternary"])
@pytest.mark.parametrize("operands", [1, 2])
def test_sums_of_codes_side_by_side_fit_into_registers(rows: str, name: str, operands: int) -> None:
    format_ = Format(name, 8 if name == "int4" else 1, "bf16")
    layout = tiling.code_panels(isa.AVX2, rows, format_, operands, (8, 256, 256))
    side = tiling.side_by_side(isa.AVX2, layout)
    assert (side > 1) == ((rows, name) != ("i8", "ternary"))
    for count in range(1, tiling.FEW_ROWS + 1):
        at_once = tiling.panels_at_once(layout, count, side)
        assert side % at_once == 0
        assert at_once * count * layout.vectors < isa.AVX2.registers
