"""The architectures that kernels are written for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arch:
    """An architecture as `nvcc -arch` names it.

    name          also the name of the artifact's variant
    capability    compute capability as 10 * major + minor
    exact         runs on devices of this capability alone; else also on later ones of the same major number
    tma, wgmma    whether kernels may use them
    shared_bytes  the most dynamic shared memory of a block
    """

    name: str
    capability: int
    exact: bool
    tma: bool
    wgmma: bool
    shared_bytes: int


ARCHITECTURES = {
    arch.name: arch
    for arch in (
        # An A100 has 163 KiB, but devices of capability 8.6 and 8.9 run this code, too.
        Arch("sm_80", 80, False, False, False, 99 * 1024),
        Arch("sm_90a", 90, True, True, True, 227 * 1024),
        # Has TMA and no wgmma; until there are kernels for tcgen05 it runs those of sm_80.
        Arch("sm_100a", 100, True, True, False, 227 * 1024),
    )
}
"""By name, oldest first."""
