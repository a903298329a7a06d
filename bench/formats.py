"""How the weights of experts are kept, and what that costs to read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """`bits` a weight and, for quantised ones, a scale of `scale_bytes` for `group` neighbours (0: a whole row)."""

    name: str
    x: str
    """dtype of tokens and results: "f32" or "bf16"."""
    declared: str
    """How a .moe file says it."""
    bits: float
    scale_bytes: int
    group: int
    arithmetic: str
    """The fastest products that this format can be multiplied with: "f32", "bf16" or "int8"."""

    @property
    def quantised(self) -> bool:
        return self.scale_bytes > 0

    def matrix_bytes(self, rows: int, columns: int) -> float:
        """Bytes of a matrix [rows, columns] with its scales."""
        scales = rows * (columns // self.group if self.group else 1)
        return rows * columns * self.bits / 8 + scales * self.scale_bytes


FORMATS = {
    format.name: format
    for format in (
        Format("bf16", "bf16", "bf16", 16, 0, 0, "bf16"),
        Format("f32", "f32", "f32", 32, 0, 0, "f32"),
        Format("int8", "bf16", "int8(per = channel)", 8, 4, 0, "int8"),
        Format("int4", "bf16", "int4(group = 32)", 4, 2, 32, "int8"),
        Format("ternary", "bf16", "ternary", 2, 4, 0, "int8"),
    )
}
UNQUANTISED = ("bf16", "f32")
