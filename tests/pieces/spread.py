"""Layers spread over a mesh, for tests."""

from __future__ import annotations

from moec.artifact.parallel import Parallel, Sharding
from moec.schedule.mesh import Axis, Mesh


def spread(ranks: int, experts: int, group: str = "routed", shared: tuple[str, ...] = ()) -> Parallel:
    """A mesh of one axis over which tokens and experts are cut, evenly as far as that goes."""
    slots = -(-experts // ranks)
    holders = tuple((expert // slots,) for expert in range(experts))
    return Parallel(
        layout="Serve",
        mesh=Mesh("Pod", (Axis("gpu", ranks),)),
        tokens=("gpu",),
        routed=Sharding(group, ("gpu",)),
        slots=slots,
        holders=holders,
        shared=tuple(Sharding(name) for name in shared),
    )
