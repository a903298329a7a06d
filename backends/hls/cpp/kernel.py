"""The kernel's name, its arguments and the files that make it: what sources, test bench, hosts and `link.cfg` share."""

from __future__ import annotations

from dataclasses import dataclass

from moec.artifact.simulation import CSIM_SOURCES
from moec.fixed.design import Design

NAME = "moe_layer"
"""The top function, and the kernel's name in an xclbin."""

SOURCES = ("src/moe_layer.cpp",)
"""What is synthesised; the headers beside it are included by it."""

LIBRARY = CSIM_SOURCES
"""What the csim library is made of; `moec.artifact.simulation` says how, and what it gives."""


@dataclass(frozen=True)
class Argument:
    """An argument of the kernel, in the order of its parameters.

    bundle   the AXI master that it is read or written through; None for a scalar
    written  whether the kernel writes it
    """

    name: str
    ctype: str
    bundle: str | None
    written: bool


def arguments(design: Design) -> tuple[Argument, ...]:
    """The kernel's arguments: rows, tasks where there are several, weights through each port, result, tokens."""
    router = design.layer.router
    return (
        Argument("rows", "const word_t *", "data", False),
        *((Argument("tasks", "const int *", "tasks", False),) if router.tasks > 1 else ()),
        *(Argument(f"weights{port}", "const word_t *", f"weights{port}", False) for port in range(design.ports)),
        Argument("result", "word_t *", "data", True),
        Argument("tokens", "int", None, False),
    )
