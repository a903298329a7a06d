"""Functions whose code is written only where nobody has their machine code yet.

Microkernels, and what packs weights, are most of a layer's code, and variants of a layer have them in common.  What
such a function is written from is known without writing it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import moec

if TYPE_CHECKING:
    from moec.backends.cpu.builder import Builder, Function


class Source(Protocol):
    """What a function is written from: a frozen dataclass of numbers, names and the like, and of nothing else."""

    def write(self, b: Builder, arguments: Sequence[Any]) -> None:
        """The body, which may depend on the source, on the instruction set of `b`, and on nothing else.

        It mentions no symbol of the module, so that where it is not written nothing else is missing.
        """
        ...


@dataclass(frozen=True)
class Later:
    """A function that is declared; `write` gives it its body."""

    function: Function
    source: Source
    builder: Builder
    """For the function's instruction set; it refuses to declare anything."""

    @property
    def key(self) -> str:
        """Functions of one key have the same code, and of one name: `Builder.later` sees to that."""
        return f"{self.function.name}\n{self.source!r}\n{self.builder.variant!r}\n{sources()}"

    @property
    def written(self) -> bool:
        return bool(self.function.operation.body.blocks)

    def write(self) -> None:
        """Unless it is written."""
        if not self.written:
            with self.builder.define(self.function) as arguments:
                self.source.write(self.builder, arguments)


def digest(source: Source) -> str:
    """A short name for what a function is written from."""
    return hashlib.sha256(repr(source).encode()).hexdigest()[:16]


@cache
def sources() -> str:
    """A digest of the modules that write functions: what two versions of them write may differ."""
    root = Path(moec.__file__).parent
    here = Path(__file__).parent
    found = hashlib.sha256()
    for folder in (here, root, root / "dialect"):
        for path in sorted(folder.glob("*.py")):
            content = path.read_bytes()
            found.update(f"{path.name} {len(content)}\n".encode())
            found.update(content)
    return found.hexdigest()
