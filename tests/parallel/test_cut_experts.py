"""Experts whose hidden dimension is cut over ranks: a step of training, and checkpoints, beside one process.

Partial sums are added up in another order than in one process, so gradients are near those of one process, not equal.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh

import moec
from moec.artifact.parallel import Parallel
from moec.runtime.parallel.checkpoints import load, save
from moec.runtime.parallel.layer import ParallelLayer
from tests.parallel.ranks import run
from tests.parallel.test_training import Named, data, one_step
from tests.pieces.chain import compiled
from tests.pieces.spread import spread

pytestmark = pytest.mark.long

LAYER = """layer L(d = 32, ff = 24) {
  router softmax_top(2)
  experts routed[5] = sigmoid(linear(x, 1)) * swiglu(d, ff) : f32
  shared common[2] = sigmoid(linear(x, 1)) * swiglu(d, ff) : f32
  loss balance(0.02, over = global)
}"""
"""Each expert has a factor that every rank has whole; its projections are cut."""
COPIES = ("router.logits.weight", "common.linear_0.weight")
"""What all ranks have whole, and so must stay the same on all of them."""
RANKS = {"alone": 2, "own": 4}
TOKENS = ((9, 4, 1, 6), (0, 13, 0, 0), (0, 0, 0, 0), (1, 1, 1, 1))


def layout(positions: int, experts: int, group: str, own: bool) -> Parallel:
    """Parts of experts on two ranks each, which have the same tokens, or tokens of their own."""
    made = spread(positions, experts, group, ("common",), tp=2)
    return replace(made, tokens=("gpu", "tp")) if own else made


@cache
def artifact(name: str) -> Path:
    return compiled(LAYER, RANKS[name] // 2, training=True, make=partial(layout, own=name == "own"))


def loaded(path: str) -> ParallelLayer:
    size = torch.distributed.get_world_size() // 2
    mesh = init_device_mesh("cpu", (size, 2), mesh_dim_names=("gpu", "tp"))
    layer = moec.load(path, mesh=mesh, training=True, timeout=120.0).reset_parameters(0)
    assert isinstance(layer, ParallelLayer)
    return layer


def own(layer: ParallelLayer, whole: Named) -> Named:
    """Of each tensor of the whole layer this rank's part."""
    experts = layer.table.held[layer.position].tolist()
    return {name: layer._own.of(name, tensor, experts) for name, tensor in whole.items()}


def steps(path: str) -> list[tuple[Named, Named]]:
    """Call by call what this rank computes, and what it ought to."""
    layer = loaded(path)
    single = moec.load(path, training=True).reset_parameters(0)
    tokens = layer.parallel.tokens
    found = []
    for number, counts in enumerate(TOKENS):
        counts = counts[: layer._mesh.size(tokens)]
        at = layer._mesh.position(layer.rank, tokens)
        mine = slice(sum(counts[:at]), sum(counts[: at + 1]))
        x, dy = data(32, torch.float32, sum(counts), number)
        ours, whole = one_step(layer, x[mine], dy[mine]), one_step(single, x, dy)
        rest = {"x": whole.pop("x")[mine], "y": whole.pop("y")[mine], "loss": whole.pop("loss")}
        found.append((ours, {**own(layer, whole), **rest}))
    return found


@pytest.mark.parametrize("name", [pytest.param("alone", marks=pytest.mark.slow), "own"])
def test_gradients_are_near_those_of_one_process(name: str) -> None:
    ranks = run(steps, RANKS[name], str(artifact(name)))
    for rank, calls in enumerate(ranks):
        for number, (ours, expected) in enumerate(calls):
            assert set(ours) == set(expected)
            for what, tensor in ours.items():
                note = partial("rank {}, call {}, {}: {}".format, rank, number, what)
                torch.testing.assert_close(tensor, expected[what], rtol=1e-4, atol=1e-5, msg=note)
            for what in COPIES:
                assert torch.equal(ours[what], ranks[0][number][0][what]), what


def write(path: str, folder: str) -> None:
    """Every moment of the optimizer has the values of its parameter."""
    layer = loaded(path)
    optimizer = torch.optim.AdamW(layer.parameters())
    one_step(layer, *data(32, torch.float32, 6, 0))
    optimizer.step()
    layer.reset_parameters(3)
    for parameter, state in optimizer.state.items():
        state["exp_avg"].copy_(parameter.detach())
    save(folder, layer, optimizer, {"step": 1}, timeout=120)


def check(layer: torch.nn.Module, folder: str, expected: Named) -> None:
    optimizer = torch.optim.AdamW(layer.parameters())
    assert load(folder, layer, optimizer) == {"step": 1}
    for name, parameter in layer.named_parameters():
        assert torch.equal(parameter, expected[name]), name
        assert torch.equal(optimizer.state[parameter]["exp_avg"], expected[name]), name


def read(path: str, folder: str) -> None:
    layer = loaded(path)
    check(layer, folder, own(layer, moec.load(path, training=True).reset_parameters(3).state_dict()))


def test_checkpoints_of_cut_experts_are_read_by_one_process_and_other_layouts(tmp_path: Path) -> None:
    path, folder = str(artifact("alone")), str(tmp_path / "step_1")
    run(write, 2, path, folder)
    whole = moec.load(path, training=True)
    check(whole, folder, moec.load(path, training=True).reset_parameters(3).state_dict())
    run(read, 4, str(artifact("own")), folder)
