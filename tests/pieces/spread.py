"""Layers spread over a mesh, for tests."""

from __future__ import annotations

from moec.artifact.parallel import Parallel, Sharding
from moec.schedule.mesh import Axis, Mesh


def spread(ranks: int, experts: int, group: str = "routed", shared: tuple[str, ...] = (), tp: int = 1) -> Parallel:
    """Tokens and experts are cut over an axis of so many ranks, evenly as far as that goes; experts' hidden dimensions
    over another one, if `tp` is more than 1."""
    slots = -(-experts // ranks)
    holders = tuple((expert // slots,) for expert in range(experts))
    cut = ("tp",) if tp > 1 else ()
    return Parallel(
        layout="Serve",
        mesh=Mesh("Pod", (Axis("gpu", ranks), *([Axis("tp", tp)] if cut else []))),
        tokens=("gpu",),
        routed=Sharding(group, ("gpu",), cut),
        slots=slots,
        holders=holders,
        shared=tuple(Sharding(name, tp=cut) for name in shared),
    )
