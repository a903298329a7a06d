"""The compute tile as a shared library that Verilator makes: how it is built, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moec.fixed.arithmetic import gate_fraction
from moec.fixed.reference import Routing
from moec.fixed.spec import Layer

FOLDER = "rtl"
"""The project's folder that holds the tile; paths below are relative to it."""

TOP = "moec_tile"
TILE = "moec_tile.sv"
LIBRARY_SOURCE = "moec_rtl.cpp"

ENTRY = "moec_rtl"
"""What the library gives, as `moec_rtl.h` in the folder says:

    int moec_rtl(const void *rows, const void *const *weights, int32_t tokens, int32_t visits, const int32_t *expert,
                 const int32_t *first, const int32_t *token, const int32_t *weight, void *result,
                 moec_rtl_cycles *cycles);

Buffers are laid out as `moec.fixed.layout` says; `weights` has a pointer for each port.  The lists are those of
`Visits`.  `cycles` may be null; otherwise it points to five uint64.  Returns 0, or 1 where a number is out of range.
"""


def command(verilator: str, folder: Path, library: Path, build: Path) -> list[str]:
    """What makes the shared library `library` of a project's `folder` (its rtl/), in the folder `build`."""
    return [
        verilator,
        *("--cc", "--exe", "--build", "-O3", "-Wno-fatal", "-Wno-lint"),
        *("-CFLAGS", "-fPIC -O1", "-LDFLAGS", "-shared"),
        *("--top-module", TOP, "--Mdir", str(build.absolute()), "-o", str(library.absolute())),
        *(str((folder / source).absolute()) for source in (TILE, LIBRARY_SOURCE)),
    ]


@dataclass(frozen=True)
class Visits:
    """Which rows meet which expert's weights, int32.

    expert  [visits]: routed experts are numbered first, then shared ones
    first   [visits + 1]: where the items of each visit begin
    token, weight   [items]: a row, and what the expert's result is multiplied with, with `gate_fraction` bits
    """

    expert: NDArray[np.int32]
    first: NDArray[np.int32]
    token: NDArray[np.int32]
    weight: NDArray[np.int32]


def visits(layer: Layer, found: Routing) -> Visits:
    """Of a call, expert by expert; an expert without tokens is not visited."""
    tokens = len(found.experts)
    experts, counts, rows, weights = [], [], [], []
    for number in range(layer.experts):
        token, slot = np.nonzero(found.experts == number)
        if len(token):
            experts.append(number)
            counts.append(len(token))
            rows.append(token)
            weights.append(found.weights[token, slot])
    for number in range(layer.shared if tokens else 0):
        experts.append(layer.experts + number)
        counts.append(tokens)
        rows.append(np.arange(tokens))
        weights.append(np.full(tokens, 1 << gate_fraction(layer.router)))
    nothing = [np.zeros(0, np.int64)]
    return Visits(
        np.array(experts, np.int32),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        np.concatenate(rows or nothing).astype(np.int32),
        np.concatenate(weights or nothing).astype(np.int32),
    )
