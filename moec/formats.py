"""The formats of quantised weights: which integers each stores, and what makes the scale (docs/ir.md says how)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Codes:
    """The integers that a format stores, and what makes them."""

    lowest: int
    highest: int
    divisor: int
    """The scale of a group is its largest magnitude over this; 0: its mean magnitude."""

    @property
    def bits(self) -> int:
        """How many a code needs."""
        return (self.highest - self.lowest).bit_length()


FORMATS: Mapping[str, Codes] = {
    "int8": Codes(-127, 127, 127),
    "int4": Codes(-8, 7, 7),
    "ternary": Codes(-1, 1, 0),
}
