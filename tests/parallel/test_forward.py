"""Forward schedules on real ranks: bit for bit the layer in one process, where nothing is approximate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from moec.artifact.parallel import Parallel, Sends, Sharding
from moec.placement.problem import Placement
from moec.placement.table import Table
from moec.runtime.parallel.buffers import Buffers
from moec.runtime.parallel.engine import Engine
from moec.runtime.parallel.failures import Watch
from moec.runtime.parallel.network import Network, processes
from moec.schedule.build import Options, both
from moec.schedule.mesh import Axis, Mesh
from moec.schedule.steps import Wiring
from tests.parallel.ranks import run
from tests.parallel.reference import Small, choices

Found = TypeVar("Found")


@dataclass(frozen=True)
class Case:
    """A layer on a mesh of 2 nodes of 2, or of 4 (one axis)."""

    small: Small = field(default_factory=Small)
    axes: tuple[tuple[str, int], ...] = (("node", 2), ("gpu", 2))
    tokens: tuple[str, ...] = ("node", "gpu")
    ep: tuple[str, ...] = ("node", "gpu")
    tp: tuple[str, ...] = ()
    shared_tp: tuple[str, ...] = ()
    options: Options = field(default_factory=Options)
    partial: str | None = None
    sends: Sends = field(default_factory=Sends)
    copies: int = 1

    @property
    def mesh(self) -> Mesh:
        return Mesh("Pod", tuple(Axis(name, size) for name, size in self.axes))

    @property
    def wiring(self) -> Wiring:
        small = self.small
        return Wiring(
            self.mesh.names,
            self.tokens,
            self.ep,
            self.tp,
            small.shared,
            self.shared_tp,
            small.capacity is not None,
        )

    def parallel(self) -> tuple[Parallel, Table]:
        rng = np.random.default_rng(3)
        positions = self.mesh.size(self.ep)
        holders = tuple(
            tuple(sorted(int(h) for h in rng.choice(positions, min(self.copies, positions), replace=False)))
            for _ in range(self.small.experts)
        )
        slots = max(sum(p in h for h in holders) for p in range(positions)) + 1
        grid = tuple(self.mesh.axis(name).size for name in self.ep) or (1,)
        table = Table.first(Placement.even(holders), slots, grid)
        routed = Sharding("routed", self.ep, self.tp)
        record = Parallel(
            "Serve", self.mesh, self.tokens, routed, slots, holders, partial=self.partial, sends=self.sends
        )
        return record, table


CALLS = (("any", (5, 3, 7, 4)), ("any", (0, 0, 9, 0)), ("one", (4, 0, 1, 6)), ("none", (2, 1, 1, 1)), ("any", (0,) * 4))
"""What ranks are given, call by call: how tokens choose, and how many each position of the tokens has."""


def on_rank(cases: dict[str, Case]) -> dict[str, list[list[torch.Tensor]]]:
    """For each case and call (result, what one process gives for the same tokens)."""
    return each(cases, results)


def each(cases: dict[str, Case], results: Callable[[Case, Network], Found]) -> dict[str, Found]:
    """The results of each case on the network of its mesh."""
    store = dist.distributed_c10d._get_default_store()
    watch = Watch(store, dist.get_rank(), range(dist.get_world_size()), 20.0)
    networks: dict[tuple[tuple[str, int], ...], Network] = {}
    found: dict[str, Found] = {}
    for name, case in cases.items():
        mesh = case.mesh
        if case.axes not in networks:
            devices = init_device_mesh("cpu", mesh.shape, mesh_dim_names=mesh.names)
            networks[case.axes] = Network(mesh, processes(mesh, devices), watch, 20.0)
        try:
            found[name] = results(case, networks[case.axes])
        except Exception as error:
            error.add_note(f"case: {name}")
            raise
    return found


def results(case: Case, network: Network) -> list[list[torch.Tensor]]:
    mesh, small = case.mesh, case.small
    parallel, table = case.parallel()
    position = parallel.position(network.rank)
    schedules = both(case.wiring, case.options, training=False)
    pieces = small.pieces(table, position, mesh.size(case.tp), mesh.size(case.shared_tp))
    engine = Engine(parallel, schedules, pieces, ("x", "choice"), network)
    lookup, buffers = table.lookup(position), Buffers()
    found, held = [], 0
    for times in range(2):
        for number, (kind, tokens) in enumerate(CALLS):
            rng = np.random.default_rng(number)
            counts = tokens[: mesh.size(case.tokens)]
            x = torch.from_numpy(rng.standard_normal((sum(counts), small.columns))).to(small.dtype)
            choice = choices(small, len(x), kind, rng)
            at = mesh.position(network.rank, case.tokens)
            begin, end = sum(counts[:at]), sum(counts[: at + 1])
            call = engine.call({"x": x[begin:end], "choice": choice[begin:end]}, lookup, buffers)
            engine.run(call)
            if times:
                found.append([call.results["y"], small.single(x, choice)[begin:end]])
        if not times:
            held = buffers.nbytes
    assert buffers.nbytes == held, "the same calls need no more memory"
    return found


EXACT = {
    "blocking": Case(),
    "deduplicated": Case(options=Options(deduplicate=True)),
    "bf16": Case(small=Small(dtype=torch.bfloat16), options=Options(deduplicate=True, chunks=2)),
    "one axis": Case(axes=(("gpu", 4),), tokens=("gpu",), ep=("gpu",), options=Options(deduplicate=True)),
    "chunks of tokens": Case(options=Options(chunks=3, deduplicate=True, buffers=2)),
    "chunks of experts": Case(options=Options(chunks=3, deduplicate=True, split="experts")),
    "chunks in another order": Case(options=Options(chunks=3, deduplicate=True, split="experts", order=(2, 0, 1))),
    "one buffer": Case(options=Options(chunks=3, buffers=1)),
    "local first": Case(options=Options(deduplicate=True, local_first=True)),
    "local first in chunks": Case(options=Options(chunks=2, deduplicate=True, local_first=True), copies=2),
    "local last": Case(options=Options(chunks=2, deduplicate=True, local_first=True, local="combine")),
    "local first and last": Case(options=Options(chunks=3, deduplicate=True, local_first=True, local="both"), copies=2),
    "local first and last by experts": Case(options=Options(chunks=2, split="experts", local_first=True, local="both")),
    "local first by experts": Case(options=Options(chunks=2, split="experts", local_first=True)),
    "hierarchical": Case(options=Options(hierarchical=True, deduplicate=True)),
    "hierarchical in chunks": Case(options=Options(hierarchical=True, deduplicate=True, chunks=2, local_first=True)),
    "hierarchical, every pair": Case(options=Options(hierarchical=True, chunks=2, split="experts")),
    "shared first": Case(small=Small(shared=True), options=Options(shared="dispatch", chunks=2, deduplicate=True)),
    "shared last": Case(small=Small(shared=True), options=Options(shared="combine", deduplicate=True)),
    "capacity": Case(small=Small(capacity=4), options=Options(deduplicate=True, chunks=2)),
    "no overlap": Case(options=Options(chunks=2, overlap=(), deduplicate=True)),
    "copies": Case(options=Options(deduplicate=True, chunks=2), copies=3),
    "experts in a node": Case(ep=("gpu",), options=Options(deduplicate=True)),
    "tokens in a node": Case(tokens=("node",), options=Options(deduplicate=True, chunks=2)),
    "tokens across nodes": Case(tokens=("gpu",), small=Small(capacity=3), options=Options(hierarchical=True)),
    "tokens everywhere": Case(tokens=(), small=Small(shared=True)),
}


@pytest.fixture(scope="module")
def exact() -> list[dict[str, list[list[torch.Tensor]]]]:
    return run(on_rank, 4, EXACT)


@pytest.mark.parametrize("name", EXACT)
def test_results_have_the_bits_of_one_process(name: str, exact: list[dict[str, list[list[torch.Tensor]]]]) -> None:
    for rank, calls in enumerate(exact):
        for number, (ours, expected) in enumerate(calls[name]):
            assert torch.equal(ours, expected), f"rank {rank}, call {number}"


_SENT = Options(deduplicate=True, chunks=2)
_NODES = Options(deduplicate=True, hierarchical=True, chunks=2)
APPROX = {
    "tensor parallel": (Case(ep=("node",), tp=("gpu",), options=_SENT), 1e-6),
    "axes of one": (
        Case(
            small=Small(shared=True),
            axes=(("pod", 2), ("node", 1), ("gpu", 2)),
            tokens=("pod", "gpu"),
            ep=("pod", "gpu"),
            tp=("node",),
            shared_tp=("node",),
            sends=Sends("bf16", None),
            options=_SENT,
        ),
        0.004,
    ),
    "tensor parallel, same tokens": (Case(tokens=("node",), ep=("node",), tp=("gpu",), options=_SENT), 1e-6),
    "tensor parallel only": (Case(tokens=("node",), ep=(), tp=("gpu",), options=_SENT), 1e-6),
    "shared experts cut": (Case(small=Small(shared=True), shared_tp=("gpu",), options=_SENT), 1e-6),
    "shared experts cut everywhere": (
        Case(small=Small(shared=True), shared_tp=("node", "gpu"), options=Options(shared="dispatch")),
        1e-6,
    ),
    "shared experts cut, same tokens": (
        Case(small=Small(shared=True), tokens=("gpu",), shared_tp=("node",), options=_SENT),
        1e-6,
    ),
    "shared experts cut, some the same": (
        Case(small=Small(shared=True), tokens=("gpu",), shared_tp=("node", "gpu"), options=_SENT),
        1e-6,
    ),
    "sums by rank": (Case(partial="gpu", options=replace(_SENT, local_first=True)), 1e-6),
    "sums by rank in nodes": (Case(partial="gpu", options=_NODES), 1e-6),
    "sums by node": (Case(partial="node", options=_NODES), 1e-6),
    "sums, tensor parallel": (Case(ep=("node",), tp=("gpu",), partial="node", options=_SENT), 1e-6),
    "bf16": (Case(sends=Sends("bf16", "bf16"), options=_SENT), 0.004),
    "int8 in nodes": (Case(sends=Sends("int8", "int8"), partial="node", options=_NODES), 0.006),
    "fp8": (Case(sends=Sends("fp8_e4m3", None), options=_NODES), 0.03),
    "int8, tensor parallel": (Case(ep=("node",), tp=("gpu",), sends=Sends("int8", "bf16"), options=_SENT), 0.006),
}


@pytest.fixture(scope="module")
def approximate() -> list[dict[str, list[list[torch.Tensor]]]]:
    return run(on_rank, 4, {name: case for name, (case, _) in APPROX.items()})


@pytest.mark.parametrize("name", APPROX)
def test_results_are_near_those_of_one_process(
    name: str, approximate: list[dict[str, list[list[torch.Tensor]]]]
) -> None:
    _, share = APPROX[name]
    for rank, calls in enumerate(approximate):
        for number, (ours, expected) in enumerate(calls[name]):
            error = (ours.double() - expected.double()).abs().max() if len(ours) else 0
            # Each term has an error, and terms, of which the largest are about 100, may cancel.
            assert error <= share * 100, f"rank {rank}, call {number}: {error}"
