"""Wirings and options of schedules, and how to draw them."""

from hypothesis import strategies as st

from moec.schedule.build import LOCAL_AT, SHARED_AT, Options
from moec.schedule.mesh import Axis, Mesh
from moec.schedule.steps import SPLITS, WAYS, Wiring

NODE, GPU = ("node",), ("gpu",)
BOTH = NODE + GPU

WIRINGS = {
    "flat": Wiring(GPU, GPU, GPU),
    "two axes": Wiring(BOTH, BOTH, BOTH, shared=True),
    "capacity": Wiring(BOTH, BOTH, BOTH, capacity=True),
    "tensor": Wiring(BOTH, BOTH, NODE, GPU, shared=True, shared_tp=GPU),
    "tensor, same tokens": Wiring(BOTH, NODE, NODE, GPU, shared=True, shared_tp=GPU, capacity=True),
    "same tokens": Wiring(BOTH, GPU, BOTH, shared=True),
    "tensor only": Wiring(GPU, GPU, (), GPU),
    "inside the nodes": Wiring(BOTH, BOTH, GPU, shared=True, shared_tp=BOTH),
}


@st.composite
def options(draw: st.DrawFn, wiring: Wiring) -> Options:
    chunks = draw(st.integers(1, 4))
    buffers = draw(st.none() | st.integers(1, chunks))
    orders = st.none() | st.permutations(range(chunks)).map(tuple)
    return Options(
        split=draw(st.sampled_from(SPLITS)),
        chunks=chunks,
        hierarchical=len(wiring.ep) > 1 and draw(st.booleans()),
        deduplicate=draw(st.booleans()),
        local_first=not wiring.tp and draw(st.booleans()),
        buffers=buffers,
        overlap=tuple(way for way in WAYS[:2] if draw(st.booleans())),
        shared=draw(st.sampled_from(SHARED_AT)),
        order=draw(orders) if buffers is None else None,
        local=draw(st.sampled_from(LOCAL_AT)),
    )


def mesh_of(wiring: Wiring, size: int = 2) -> Mesh:
    return Mesh("M", tuple(Axis(axis, size) for axis in wiring.mesh))
