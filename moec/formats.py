"""The formats of quantised weights: which numbers each stores, and what makes the scale (docs/ir.md says how)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Codes:
    """The numbers that a format stores, and what makes them."""

    lowest: int
    highest: int
    divisor: int
    """The scale of a group is its largest magnitude over this; 0: its mean magnitude."""
    element: str = "i8"
    """The element type of a tensor of codes: "i8" where they are whole numbers."""

    @property
    def floats(self) -> bool:
        """Whether codes are floats, which may be NaN and are multiplied as they are, instead of whole numbers."""
        return self.element != "i8"

    @property
    def bits(self) -> int:
        """How many a code needs."""
        return 8 if self.floats else (self.highest - self.lowest).bit_length()


FORMATS: Mapping[str, Codes] = {
    "int8": Codes(-127, 127, 127),
    "int4": Codes(-8, 7, 7),
    "ternary": Codes(-1, 1, 0),
    "fp8_e4m3": Codes(-448, 448, 448, "f8E4M3FN"),
}
