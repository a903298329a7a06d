"""The kernel's name, its arguments and the files that make it: what sources, test bench, hosts and `link.cfg` share."""

from __future__ import annotations

from dataclasses import dataclass

from moec.fixed.design import Design

NAME = "moe_layer"
"""The top function, and the kernel's name in an xclbin."""

SOURCES = ("src/moe_layer.cpp",)
"""What is synthesised; the headers beside it are included by it."""

LIBRARY = ("csim/library.cpp", *SOURCES)
"""What `g++ -std=c++14 -O2 -fPIC -shared -Wno-unknown-pragmas -Isrc -I$AP_TYPES` makes the csim library of.

`AP_TYPES` is a folder with `ap_int.h`, `ap_fixed.h` and `hls_stream.h`: `include/` of Vitis HLS, or
`templates/vivado/ap_types` of the wheel `hls4ml`.
"""

ENTRY = "moec_csim"
"""What the csim library gives:

    int moec_csim(const void *rows, const int32_t *tasks, const void *const *weights, void *result, int32_t tokens);

Buffers are laid out as `moec.fixed.layout` says, bytes of a word in little-endian order and without any alignment;
`weights` has a pointer for each port.  `tasks` is null where the router has one task.  Returns 0, or 1 where `tokens`
is negative or above the design's.
"""


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
