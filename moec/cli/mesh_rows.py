"""How a layer is spread over a mesh in sentences, for `moec inspect`."""

from __future__ import annotations

from moec.artifact.parallel import DIRECTIONS, Parallel, Require
from moec.cli.ranges import ranges
from moec.cli.sizes import size
from moec.schedule.mesh import Axis, Mesh

MOST_POSITIONS = 16
"""Positions whose experts are listed one by one."""


def mesh_rows(parallel: Parallel) -> list[tuple[str, str]]:
    """What is said of a layer on a mesh, line by line: a heading and a text."""
    mesh, routed = parallel.mesh, parallel.routed
    rows = [("devices", f"{mesh.ranks:,}: {' × '.join(map(_axis, mesh.axes))}"), *_device(mesh)]
    rows.append(("tokens", f"cut over {_axes(parallel.tokens)}" if parallel.tokens else "the same on every device"))
    experts = f"`{routed.experts}`"
    if routed.ep:
        rows.append((experts, f"{len(parallel.holders):,} experts over {_axes(routed.ep)}, {parallel.slots:,} slots"))
        rows += _held(parallel)
    else:
        rows.append((experts, f"all {len(parallel.holders):,} on every device"))
    for cut in (routed, *parallel.shared):
        if cut.tp:
            rows.append((f"`{cut.experts}`", f"every expert is cut over {_axes(cut.tp)} (an approximation)"))
        elif cut is not routed:
            rows.append((f"`{cut.experts}`", "whole on every device"))
    rows += _exchanges(parallel)
    rows += [("required", _requirement(one)) for one in parallel.requires]
    rows.append(("bits", "those of one process" if parallel.exact else "an approximation of those of one process"))
    return rows


def _axis(axis: Axis) -> str:
    link = [f"{rate(axis.bandwidth)}"] if axis.bandwidth is not None else []
    link += [f"{1e6 * axis.latency:g} µs"] if axis.latency is not None else []
    return f"{axis.size} {axis.name}" + (f" ({', '.join(link)})" if link else "")


def rate(bandwidth: float) -> str:
    """Bytes a second: `125 MB/s`, `10 GB/s`."""
    for unit, least in (("TB/s", 1e12), ("GB/s", 1e9), ("MB/s", 1e6)):
        if bandwidth >= least:
            return f"{bandwidth / least:g} {unit}"
    return f"{bandwidth / 1e3:g} KB/s"


def _device(mesh: Mesh) -> list[tuple[str, str]]:
    said = [f"{size(mesh.memory)} of memory"] if mesh.memory is not None else []
    said += [f"{mesh.flops / 1e9:g} GFLOP/s"] if mesh.flops is not None else []
    return [("each device", ", ".join(said))] if said else []


def _axes(axes: tuple[str, ...]) -> str:
    return " × ".join(axes)


def _held(parallel: Parallel) -> list[tuple[str, str]]:
    """Which experts lie where at first, and why."""
    rows = []
    for position in range(min(parallel.positions, MOST_POSITIONS)):
        rows.append((f"position {position}", ranges(parallel.held(position)) or "none"))
    if parallel.positions > MOST_POSITIONS:
        rows.append(("...", f"{parallel.positions - MOST_POSITIONS:,} more"))
    for pin in parallel.pins:
        rows.append(("pinned", f"{ranges(pin.experts)} to {pin.axis} {pin.index}"))
    for one in parallel.replicate:
        hottest = f"the {one.hottest:,} hottest, " if one.hottest is not None else ""
        rows.append(("replicated", f"{hottest}{ranges(one.experts)}: {one.copies:,} copies"))
    return rows


def _exchanges(parallel: Parallel) -> list[tuple[str, str]]:
    rows = []
    if parallel.overlap is not None:
        chunks = "as many chunks as pay" if parallel.overlap.chunks is None else f"{parallel.overlap.chunks} chunks"
        beside = " and with shared experts" if parallel.overlap.with_shared else ""
        rows.append(("overlap", f"{' and '.join(parallel.overlap.directions)} with compute{beside}, in {chunks}"))
    for direction in DIRECTIONS:
        sent: str | None = getattr(parallel.sends, direction)
        if sent is not None:
            rows.append((direction, f"rows travel as {sent} (an approximation)"))
    if parallel.partial is not None:
        rows.append(("combine", f"one row for each token and {parallel.partial} travels (an approximation)"))
    return rows


def _requirement(one: Require) -> str:
    value = {"memory": size(int(one.value)), "time": f"{1e3 * one.value:g} ms", "exchange": f"{one.value:.0%}"}
    return f"{one.measure} {one.compare} {value[one.measure]}"
