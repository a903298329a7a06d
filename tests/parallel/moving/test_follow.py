"""Compiled layers whose experts move between calls: every bit is that of one process."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache, partial
from itertools import count, groupby
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

import moec
from moec.artifact.parallel import Parallel
from moec.errors import MoecError
from moec.runtime.parallel.layer import ParallelLayer
from moec.runtime.parallel.moving.follow import follow
from tests.parallel.moving.toy import FAST, random_table
from tests.parallel.ranks import run
from tests.parallel.test_layer import inputs
from tests.pieces.chain import compiled
from tests.pieces.spread import spread
from tests.pieces.test_chain import LAYERS

pytestmark = pytest.mark.long

NAMES = (("f32", "shared", "int4"), ("f32", "shared"))
"""What moves without a slot to spare, and with one a rank."""
RANKS, MOVES = 2, 4


def with_room(ranks: int, experts: int, group: str = "routed", shared: tuple[str, ...] = (), more: int = 1) -> Parallel:
    found = spread(ranks, experts, group, shared)
    return replace(found, slots=found.slots + more)


@cache
def artifact(name: str, more: int) -> Path:
    shared = tuple(group for group in ("common", "other") if f"shared {group}" in LAYERS[name])
    return compiled(LAYERS[name], RANKS, make=partial(with_room, shared=shared, more=more))


def moved(paths: dict[str, str], seed: int) -> dict[str, tuple[list[torch.Tensor], list[int]]]:
    """Calls of layers whose experts move again and again, all together; the results, and the version at each call."""
    mesh = init_device_mesh("cpu", (RANKS,), mesh_dim_names=("gpu",))
    layers = {name: moec.load(path, mesh=mesh, timeout=120.0).reset_parameters(0) for name, path in paths.items()}
    found: dict[str, tuple[list[torch.Tensor], list[int]]] = {name: ([], []) for name in paths}
    random = np.random.default_rng(seed)
    with follow(list(layers.values()), replace(FAST, piece=1000)) as moving:
        future = None
        number = later = 0
        while later < 3:
            version = moving.gate.active.version
            if moving.leads and (future is None or future.done()) and version < MOVES:
                future = moving.move([random_table(random, table) for table in moving.tables])
            for at, (name, layer) in enumerate(layers.items()):
                assert isinstance(layer, ParallelLayer)
                x = inputs(layer.manifest, 7 + number % 5, number * RANKS + layer.rank)
                found[name][0].append(layer(*x))
                found[name][1].append(moving.gate.active.version)
                assert layer.table == moving.tables[at]
            number += 1
            ended = torch.tensor([int(version == MOVES)])
            dist.broadcast(ended, 0)
            later += int(ended)
    return found


@pytest.mark.parametrize("more", [0, 1])
def test_moves_change_no_bit(more: int) -> None:
    paths = {name: str(artifact(name, more)) for name in NAMES[more]}
    ranks = run(moved, RANKS, paths, more)
    for name, path in paths.items():
        layer = moec.load(path).reset_parameters(0)
        versions = ranks[0][name][1]
        assert versions[-1] == MOVES
        for rank, found in enumerate(ranks):
            results, seen = found[name]
            assert seen == versions
            for number, result in enumerate(results):
                x = inputs(layer.manifest, 7 + number % 5, number * RANKS + rank)
                assert torch.equal(result, layer(*x))


def follows(path: str) -> tuple[list[int], list[torch.Tensor], list[torch.Tensor]]:
    """Experts of the first rank are chosen by nearly all tokens."""
    mesh = init_device_mesh("cpu", (RANKS,), mesh_dim_names=("gpu",))
    layer = moec.load(path, mesh=mesh, timeout=120.0).reset_parameters(0)
    whole = moec.load(path).reset_parameters(0)
    hot = whole.state_dict()["router.logits.weight"][0]
    given, results, versions = [], [], []
    with follow([layer], replace(FAST, look=0.05, piece=4096)) as moving:
        end = time.monotonic() + 180
        for number in count():
            (x,) = inputs(layer.manifest, 40, number * RANKS + layer.rank)
            given.append(x + 3 * hot)
            results.append(layer(given[-1]))
            versions.append(moving.gate.active.version)
            done = torch.tensor([int(moving.leads and (versions[-1] > 0 or time.monotonic() > end))])
            dist.broadcast(done, 0)
            if done:
                break
    return versions, given, results


def test_experts_follow_the_load_of_calls() -> None:
    """By themselves, and with the bits of one process."""
    ranks = run(follows, RANKS, str(artifact("f32", 1)))
    layer = moec.load(artifact("f32", 1)).reset_parameters(0)
    assert ranks[0][0] == ranks[1][0]
    assert ranks[0][0][-1] > 0
    for _, given, results in ranks:
        assert all(torch.equal(layer(x), y) for x, y in zip(given, results, strict=True))


def scales(path: str, sizes: tuple[int, ...]) -> list[tuple[int, int, torch.Tensor]]:
    """More and fewer ranks serve, one number after the other: (step, ranks, result) of each call of this rank."""
    ranks = dist.get_world_size()
    layer = moec.load(
        path, mesh=init_device_mesh("cpu", (ranks,), mesh_dim_names=("gpu",)), timeout=120.0, elastic=True
    )
    groups = {size: dist.new_group(range(size)) for size in sorted({RANKS, *sizes})}
    assert layer.serves == (layer.rank < RANKS)
    if layer.serves:
        layer.reset_parameters(0)
    left, future, made = list(sizes), None, []
    with follow([layer], replace(FAST, piece=1000)) as moving:
        while True:
            if not moving.begin().serves:
                with pytest.raises(MoecError, match="does not serve"):
                    layer(*inputs(layer.manifest, 3, 0))
                if not moving.join():
                    return made
                continue
            step, serving = moving.gate.step, layer.table.positions
            made.append((step, serving, layer(*inputs(layer.manifest, 5, step * ranks + layer.rank))))
            if moving.leads and (future is None or (future.done() and step > future.result().step + 3)):
                future = moving.rescale(left.pop(0)) if left else None
            ended = torch.tensor([int(moving.leads and not left and future is None and step > 3)])
            dist.broadcast(ended, 0, groups[serving])
            if ended:
                return made


@pytest.mark.parametrize("name", ["shared", "f32"])
def test_ranks_join_and_leave_while_a_layer_is_called(name: str) -> None:
    """From two to four and back; who joins gets all weights from others."""
    sizes = (4, 2, 3, 2)
    ranks = run(scales, 4, str(artifact(name, 1)), sizes)
    layer = moec.load(artifact(name, 1)).reset_parameters(0)
    steps = {step: serving for step, serving, _ in ranks[0]}
    assert list(steps) == list(range(1, len(steps) + 1))
    assert [serving for serving, _ in groupby(steps.values())] == [2, *sizes]
    for rank, made in enumerate(ranks):
        assert [step for step, _, _ in made] == [step for step, serving in steps.items() if rank < serving]
        for step, _, result in made:
            assert torch.equal(result, layer(*inputs(layer.manifest, 5, step * 4 + rank)))
