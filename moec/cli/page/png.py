"""Pictures of one byte a pixel, as PNG files."""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from collections.abc import Sequence

Colour = tuple[int, int, int]


def indexed(rows: Sequence[bytes], palette: Sequence[Colour]) -> bytes:
    """A PNG of rows of equal length, top first; byte 0 is transparent, others are colours of `palette` (ISO 15948)."""
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 3, 0, 0, 0)
    colours = b"".join(map(bytes, palette))
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    parts = ((b"IHDR", header), (b"PLTE", colours), (b"tRNS", b"\0"), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def data_uri(picture: bytes) -> str:
    return f"data:image/png;base64,{b64encode(picture).decode()}"


def ramp(stops: Sequence[Colour], count: int = 256) -> list[Colour]:
    """`count` colours, evenly between the stops."""
    colours = []
    for number in range(count):
        place = number * (len(stops) - 1) / (count - 1)
        first = min(int(place), len(stops) - 2)
        share = place - first
        left, right = stops[first], stops[first + 1]
        mixed = [round(a + share * (b - a)) for a, b in zip(left, right, strict=True)]
        colours.append((mixed[0], mixed[1], mixed[2]))
    return colours


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
