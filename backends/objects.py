"""Machine code that was made before, to be used again where the same would be made."""

from __future__ import annotations

from collections import OrderedDict

LARGEST = 64 * 2**20
"""Bytes of object code that are kept: about a hundred layers."""


class Objects:
    """Object files by what they were made from, in memory; those that were not used for longest go.

    largest  bytes that are kept
    """

    def __init__(self, largest: int = LARGEST) -> None:
        self._largest = largest
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, name: str) -> bytes | None:
        found = self._kept.get(name)
        if found is not None:
            self._kept.move_to_end(name)
        return found

    def put(self, name: str, data: bytes) -> None:
        """Keep `data` under a digest of all that it depends on."""
        self._bytes += len(data) - len(self._kept.pop(name, b""))
        self._kept[name] = data
        while self._bytes > self._largest:
            self._bytes -= len(self._kept.popitem(last=False)[1])
