"""Backward schedules on real ranks: the gradients of one process, bit for bit where no sum is over ranks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from moec.artifact.parallel import Sends
from moec.runtime.parallel.network import Network
from moec.runtime.parallel.training.engine import TrainingEngine
from moec.schedule.build import Options, both
from tests.parallel.ranks import run
from tests.parallel.reference import choices
from tests.parallel.test_forward import CALLS, Case, each
from tests.parallel.trained import Layer

Found = dict[str, list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]]


def on_rank(cases: dict[str, Case]) -> Found:
    """For each case and call the results and gradients of this rank, and what one process gives for the same."""
    return each(cases, results)


def results(case: Case, network: Network) -> list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
    mesh, layer = case.mesh, case.small
    assert isinstance(layer, Layer)
    parallel, table = case.parallel()
    position = parallel.position(network.rank)
    schedules = both(case.wiring, case.options, training=True)
    pieces = layer.trained(table, position, mesh.size(case.tp), mesh.size(case.shared_tp))
    engine = TrainingEngine(parallel, schedules, pieces, ("x", "choice"), network)
    p = layer.parameters()
    held = torch.from_numpy(table.held[position].copy()).long()
    mine = {"experts": [p[name][held.clamp(min=0)] for name in ("scale", "shift")]}
    mine |= {"route": [p["bias"]], "shared": [p["gain"]]}
    found = []
    for number, (kind, tokens) in enumerate(CALLS):
        rng = np.random.default_rng(number)
        counts = tokens[: mesh.size(case.tokens)]
        x = torch.from_numpy(rng.standard_normal((sum(counts), layer.columns))).to(layer.dtype)
        dy = torch.from_numpy(rng.standard_normal((sum(counts), layer.columns))).to(layer.dtype)
        choice = choices(layer, len(x), kind, rng)
        at = mesh.position(network.rank, case.tokens)
        own = slice(sum(counts[:at]), sum(counts[: at + 1]))
        call, _ = engine.forward({"x": x[own], "choice": choice[own]}, mine, table, table.lookup(position))
        back, _ = engine.backward(call, dy[own], {})
        ours = {"y": call.results["y"], "x": back.tokens["x"], "bias": back.parameters["route"]["bias"]}
        ours |= back.parameters["experts"]
        if layer.shared:
            ours["gain"] = back.parameters["shared"]["gain"]
        expected = layer.step(x, choice, p, dy)
        expected = {name: expected[name] for name in ours}
        expected |= {"y": expected["y"][own], "x": expected["x"][own]}
        for name in ("scale", "shift"):
            expected[name] = torch.where(held[:, None] >= 0, expected[name][held.clamp(min=0)], 0.0)
        found.append((ours, expected))
    return found


_L, _S = Layer(), Layer(shared=True)
EXACT = {
    "blocking": Case(_L),
    "deduplicated": Case(_S, options=Options(deduplicate=True)),
    "one axis": Case(_L, axes=(("gpu", 4),), tokens=("gpu",), ep=("gpu",), options=Options(deduplicate=True)),
    "chunks": Case(_S, options=Options(chunks=3, deduplicate=True, buffers=2, local_first=True, shared="dispatch")),
    "hierarchical": Case(_L, options=Options(hierarchical=True, deduplicate=True)),
    "hierarchical in chunks": Case(
        _S, options=Options(hierarchical=True, deduplicate=True, chunks=2, shared="combine")
    ),
    "hierarchical, every pair": Case(_L, options=Options(hierarchical=True, chunks=2)),
    "capacity": Case(Layer(capacity=4), options=Options(deduplicate=True, chunks=2)),
    "no overlap": Case(_L, options=Options(chunks=2, overlap=(), deduplicate=True)),
    "tokens in a node": Case(_S, tokens=("node",), options=Options(deduplicate=True, chunks=2)),
    "tokens across nodes": Case(Layer(capacity=3), tokens=("gpu",), options=Options(hierarchical=True)),
    "tokens across nodes, one hop": Case(_S, tokens=("gpu",), options=Options(deduplicate=True)),
    "tokens everywhere": Case(_S, tokens=()),
}
ROUNDED = {
    "copies": Case(_L, options=Options(deduplicate=True, chunks=2), copies=3),
    "experts in a node": Case(_S, ep=("gpu",), options=Options(deduplicate=True)),
}
"""Gradients of experts are sums over the ranks that hold copies."""
OVER_RANKS = ("bias", "gain")
"""Gradients that are sums over the ranks."""


@pytest.fixture(scope="module")
def exact() -> list[Found]:
    return run(on_rank, 4, EXACT | ROUNDED)


@pytest.mark.parametrize("name", EXACT)
def test_gradients_have_the_bits_of_one_process(name: str, exact: list[Found]) -> None:
    for rank, calls in enumerate(exact):
        for number, (ours, expected) in enumerate(calls[name]):
            for what in set(ours) - set(OVER_RANKS):
                assert torch.equal(ours[what], expected[what]), f"rank {rank}, call {number}: {what}"


@pytest.mark.parametrize("name", [*EXACT, *ROUNDED])
def test_sums_over_ranks_are_those_of_one_process_and_alike(name: str, exact: list[Found]) -> None:
    for number in range(len(CALLS)):
        for rank, calls in enumerate(exact):
            ours, expected = calls[name][number]
            for what, found in ours.items():
                torch.testing.assert_close(found, expected[what], rtol=1e-5, atol=1e-5, msg=f"rank {rank}: {what}")
            for what in set(ours) & set(OVER_RANKS):
                assert torch.equal(ours[what], exact[0][name][number][0][what])


_SENT = Options(deduplicate=True, chunks=2)
_NODES = Options(deduplicate=True, hierarchical=True, chunks=2)
APPROX = {
    "tensor parallel": (Case(_L, ep=("node",), tp=("gpu",), options=_SENT), 1e-5),
    "tensor parallel, same tokens": (Case(_S, tokens=("node",), ep=("node",), tp=("gpu",), options=_SENT), 1e-5),
    "tensor parallel only": (Case(_L, tokens=("node",), ep=(), tp=("gpu",), options=_SENT), 1e-5),
    "shared experts cut over nodes": (Case(_S, shared_tp=("node",), options=_SENT), 1e-5),
    "shared experts cut, same tokens": (
        Case(_S, tokens=("node",), shared_tp=("gpu",), options=replace(_SENT, shared="dispatch")),
        1e-5,
    ),
    "shared experts cut everywhere": (Case(_S, tokens=("gpu",), shared_tp=("node", "gpu"), options=_NODES), 1e-5),
    "all experts cut": (
        Case(_S, tokens=("node",), ep=("node",), tp=("gpu",), shared_tp=("gpu",), options=_SENT),
        1e-5,
    ),
    "sums by rank": (Case(_L, partial="gpu", options=replace(_SENT, local_first=True)), 1e-5),
    "sums by rank in nodes": (Case(_L, partial="gpu", options=_NODES), 1e-5),
    "sums by node": (Case(_L, partial="node", options=_NODES), 1e-5),
    "sums, tensor parallel": (Case(_L, ep=("node",), tp=("gpu",), partial="node", options=_SENT), 1e-5),
    "bf16 on the wire": (Case(_L, sends=Sends("bf16", "bf16"), options=_SENT), 2e-2),
    "int8 in nodes": (Case(_L, sends=Sends("int8", "int8"), partial="node", options=_NODES), 4e-2),
    "rows of bf16": (Case(Layer(dtype=torch.bfloat16), options=_NODES), 1e-2),
}


@pytest.fixture(scope="module")
def approximate() -> list[Found]:
    return run(on_rank, 4, {name: case for name, (case, _) in APPROX.items()})


@pytest.mark.parametrize("name", APPROX)
def test_gradients_are_near_those_of_one_process(name: str, approximate: list[Found]) -> None:
    _, share = APPROX[name]
    for rank, calls in enumerate(approximate):
        for number, (ours, expected) in enumerate(calls[name]):
            for what, found in ours.items():
                whole = expected[what].double()
                scale = max(1.0, float(whole.abs().max())) if whole.numel() else 1.0
                error = float((found.double() - whole).abs().max()) if whole.numel() else 0.0
                assert error <= share * 4 * scale, f"rank {rank}, call {number}, {what}: {error}"
