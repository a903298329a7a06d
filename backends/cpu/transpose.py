"""Transposition of a square of vectors in registers."""

from __future__ import annotations

from collections.abc import Sequence

from moec.backends.cpu.builder import Builder
from moec.backends.cpu.values import Value

_UNIT = 4
"""Lanes of 128 bits, within which instructions interleave."""


def transpose(b: Builder, rows: Sequence[Value]) -> list[Value]:
    """The columns of as many rows as a vector has lanes, each of 32 bits: 4, 8 or 16.

    Pairs of rows are interleaved twice within 128 bits, after which each register holds four elements of columns; then
    whole units of 128 bits change places.  All of it are single instructions without constants.
    """
    lanes = len(rows)
    units = lanes // _UNIT
    pairs = [_interleave(b, rows[n], rows[n + 1], 1, half) for n in range(0, lanes, 2) for half in range(2)]
    # fours[4 * j + c], unit q: column 4 * q + c of rows 4 * j .. 4 * j + 3
    fours = []
    for j in range(0, lanes, 4):
        low, high = (pairs[j], pairs[j + 2]), (pairs[j + 1], pairs[j + 3])
        fours += [_interleave(b, *both, 2, half) for both in (low, high) for half in range(2)]
    columns = {}
    for c in range(_UNIT):
        for q, column in enumerate(_units(b, [fours[_UNIT * j + c] for j in range(units)])):
            columns[_UNIT * q + c] = column
    return [columns[n] for n in range(lanes)]


def _interleave(b: Builder, first: Value, second: Value, width: int, half: int) -> Value:
    """Of each unit the lower or upper `half`: `width` lanes of the first, as many of the second, and so on."""
    lanes = first.lanes
    picked = []
    for unit in range(0, lanes, _UNIT):
        for part in range(_UNIT // 2 // width):
            begin = unit + half * _UNIT // 2 + part * width
            picked += [begin + n for n in range(width)] + [lanes + begin + n for n in range(width)]
    return b.shuffle(first, second, picked)


def _units(b: Builder, rows: list[Value]) -> list[Value]:
    """Result q: unit q of every row."""
    if len(rows) == 1:
        return rows
    lanes = rows[0].lanes

    def shuffle(first: Value, second: Value, units: Sequence[int]) -> Value:
        return b.shuffle(first, second, [unit * _UNIT + n for unit in units for n in range(_UNIT)])

    if len(rows) == 2:
        return [shuffle(rows[0], rows[1], (q, q + lanes // _UNIT)) for q in range(2)]
    low, high = ([shuffle(rows[n], rows[n + 1], (odd, odd + 2, odd + 4, odd + 6)) for odd in range(2)] for n in (0, 2))
    return [shuffle(low[q % 2], high[q % 2], (q // 2, q // 2 + 2, q // 2 + 4, q // 2 + 6)) for q in range(4)]
