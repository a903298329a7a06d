"""The few fields of an ELF file that are looked at before the dynamic linker is trusted with it."""

from __future__ import annotations

import os
import struct

from moec.errors import NotAnArtifact, TruncatedArtifact

_HEADER = struct.Struct("<4sBBB9xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_MAGIC = b"\x7fELF"
_SHARED = 3
_NO_BITS = 8
_MACHINES = {62: "x86_64", 183: "aarch64", 243: "riscv64"}


def is_library(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as artifacts do; False for one that cannot be read, and for a pipe."""
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def require_library(data: bytes, where: str) -> None:
    """Raise unless `data` begins with the header of a 64-bit little-endian ELF shared library."""
    if not data.startswith(_MAGIC):
        what = "is empty" if not data else "is not a shared library"
        raise NotAnArtifact(f"{where} {what}. `moec.load` takes a file that `moec compile` wrote.")
    if len(data) < _HEADER.size:
        raise TruncatedArtifact(f"{where} ends too early, after {len(data)} bytes")
    _, bits, order, _, kind, *_ = _HEADER.unpack_from(data)
    if (bits, order, kind) != (2, 1, _SHARED):
        raise NotAnArtifact(f"{where} is an ELF file, but not a 64-bit little-endian shared library")


def machine(data: bytes) -> str:
    """The processor architecture that the library is for, as `platform.machine()` writes it."""
    number = _HEADER.unpack_from(data)[5]
    return _MACHINES.get(number, f"ELF machine {number}")


def library_end(data: bytes) -> int:
    """Offset behind the library's last section or section table (either may lie behind the end of `data`)."""
    fields = _HEADER.unpack_from(data)
    table, count = fields[9], fields[15]
    end = table + count * _SECTION.size
    for index in range(count):
        at = table + index * _SECTION.size
        if at + _SECTION.size > len(data):
            break
        section = _SECTION.unpack_from(data, at)
        if section[1] != _NO_BITS:
            end = max(end, section[4] + section[5])
    return int(end)
