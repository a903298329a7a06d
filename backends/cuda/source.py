"""The CUDA C++ of a layer: one text for each set of kernels, with the architectures that are compiled from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moec.backends.cuda.bundle import Bundle


@dataclass(frozen=True)
class Source:
    """A translation unit and the numbers of the bundles, among those given, whose kernels it holds."""

    text: str
    bundles: tuple[int, ...]


def sources(bundles: Sequence[Bundle]) -> tuple[Source, ...]:
    """Every different text once, in the order of the first architecture that needs it."""
    found: dict[str, list[int]] = {}
    for number, bundle in enumerate(bundles):
        found.setdefault(_body(bundle), []).append(number)
    return tuple(
        Source(f"// {', '.join(bundles[n].arch.name for n in numbers)}\n{body}", tuple(numbers))
        for body, numbers in found.items()
    )


def _body(bundle: Bundle) -> str:
    headers = dict.fromkeys(header for kernel in bundle.kernels for header in kernel.includes)
    includes = "".join(f'#include "{header}"\n' for header in headers)
    return "\n".join((includes, *(kernel.source.strip("\n") + "\n" for kernel in bundle.kernels)))
