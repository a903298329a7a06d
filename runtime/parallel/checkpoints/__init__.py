"""Checkpoints of training that any number of ranks in any layout can go on from (docs/parallel.md).

Works with and without processes of `torch.distributed`; all ranks must reach the folder.  A checkpoint is a folder with
a file of tensors for each rank and `checkpoint.json`, which is written last: a folder without it is not complete.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan

from moec.errors import CheckpointError, MoecError
from moec.runtime.parallel.checkpoints.settings import restore, settings
from moec.runtime.parallel.checkpoints.state import model_state, optimizer_state
from moec.runtime.parallel.checkpoints.storage import TensorReader, TensorWriter, file_of
from moec.runtime.parallel.failures import watch

INDEX = "checkpoint.json"
FORM = 1


class _OwnPlan(DefaultSavePlanner):
    """Each rank writes what it has; that the ranks' parts make wholes is checked by who loads."""

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        return all_plans, Metadata({})


def save(
    folder: str | os.PathLike[str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    extra: Mapping[str, Any] | None = None,
    timeout: float = 300.0,
) -> None:
    """Write a checkpoint.  All ranks call it, between the same steps; it is complete when it returns.

    folder   a new folder, the same for all ranks; not an older checkpoint
    extra    further state as JSON data, the same on all ranks: the number of the step, the data's position
    timeout  seconds within which every rank must have written

    Raises CheckpointError for a folder that holds a checkpoint already, or for tensors that it cannot hold; RankError
    where another rank dies or is late.
    """
    folder = Path(folder)
    rank, world = _place()
    if (folder / INDEX).exists():
        raise CheckpointError(f"{folder} holds a checkpoint already")
    said: dict[str, Any] = {"form": FORM, "ranks": world, "extra": dict(extra or {})}
    tensors: dict[str, Any] = dict(model_state(model, rank, world, saving=True))
    if optimizer is not None:
        tensors |= optimizer_state(model, optimizer, rank, world, saving=True)
        said["optimizer"] = settings(model, optimizer)
    with _together(world, timeout) as meet, _alone():
        state_dict_saver.save(tensors, storage_writer=TensorWriter(folder, rank), planner=_OwnPlan(), no_dist=True)
        meet()
        if rank == 0:
            said["bytes"] = [(folder / file_of(one)).stat().st_size for one in range(world)]
            _write(folder / INDEX, said)
        meet()


def load(
    folder: str | os.PathLike[str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
) -> dict[str, Any]:
    """Read what this rank holds of a checkpoint into the model and the optimizer, in place; returns `extra`.

    The checkpoint may come from another number of ranks, another layout, or one process.  Each rank reads by itself.
    The optimizer may be fresh.  Raises CheckpointError for a folder that is no complete checkpoint, or lacks a tensor.
    """
    folder = Path(folder)
    rank, world = _place()
    said = _read(folder)
    files = [file_of(one) for one in range(said["ranks"])]
    tensors: dict[str, Any] = dict(model_state(model, rank, world, saving=False))
    if optimizer is not None:
        if "optimizer" not in said:
            raise CheckpointError(f"{folder}: saved without an optimizer")
        restore(model, optimizer, said["optimizer"], TensorReader(folder, files).stored)
        tensors |= optimizer_state(model, optimizer, rank, world, saving=False)
    reader = TensorReader(folder, files, wanted=tensors)
    reader.check(tensors)
    with torch.no_grad(), _alone():
        state_dict_loader.load(tensors, storage_reader=reader, no_dist=True)
    extra: dict[str, Any] = said["extra"]
    return extra


def latest(folder: str | os.PathLike[str]) -> Path | None:
    """The complete checkpoint in `folder` with the highest number at its name's end (`step_40`), or None.

    Ranks that ask at the same time get the same answer as long as nobody writes meanwhile.
    """
    found = [path.parent for path in Path(folder).glob(f"*/{INDEX}")]
    numbered = [(int(digits), path) for path in found if (digits := _digits(path.name))]
    return max(numbered)[1] if numbered else None


def _digits(name: str) -> str:
    return name[len(name.rstrip("0123456789")) :]


def _place() -> tuple[int, int]:
    """This process' rank, and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


@contextmanager
def _together(world: int, timeout: float) -> Iterator[Callable[[], None]]:
    """Gives what waits until all ranks have come as far."""
    if world == 1:
        yield lambda: None
        return
    everyone = range(world)
    found = watch(everyone, timeout)
    with found.call("saving a checkpoint"):
        yield lambda: found.wait(dist.barrier(async_op=True), "the end of writing", everyone)


@contextmanager
def _alone() -> Iterator[None]:
    """For the body, in which ranks plan without each other; what goes wrong in it is said without torch's wrapping."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            yield
        except CheckpointException as error:
            cause = next(iter(error.failures.values()))[0]
            raise cause if isinstance(cause, MoecError) else CheckpointError(str(cause)) from error


def _write(path: Path, said: Mapping[str, Any]) -> None:
    """Write the index so that it is there as a whole or not at all."""
    try:
        text = json.dumps(said, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"`extra` and the optimizer's settings must be JSON data: {error}") from error
    beside = path.with_suffix(".new")
    with beside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _read(folder: Path) -> dict[str, Any]:
    """The index, checked, and that the files are as large as it says."""
    try:
        said = json.loads((folder / INDEX).read_text())
        ranks, sizes = said["ranks"], said["bytes"]
        if said["form"] != FORM:
            raise CheckpointError(f"{folder}: of form {said['form']}, and this moec reads form {FORM}")
        if not (type(ranks) is int and 1 <= ranks == len(sizes) and isinstance(said["extra"], dict)):
            raise ValueError("fields of a wrong kind")
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is no complete checkpoint: it has no {INDEX}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / INDEX}: not an index of a checkpoint: {error}") from error
    for rank, size in enumerate(sizes):
        path = folder / file_of(rank)
        if not path.exists() or path.stat().st_size != size:
            raise CheckpointError(f"{path} is missing, or not as large as {INDEX} says")
    found: dict[str, Any] = said
    return found
