"""What a checkpoint holds of a model and its optimizer, under names that do not depend on the layout.

    model.layers.3.moe.router.weight                          a parameter or buffer
    model.layers.3.moe.routed.gate.weight.17                  of expert 17, wherever it lies
    optimizer.exp_avg.layers.3.moe.routed.gate.weight.17      the optimizer's state for it

Tensors that are not spread over ranks are taken to be the same on all of them, as data parallelism keeps them; one rank
writes each.  A `DTensor` writes its own blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

OPTIMIZER = "optimizer"


@dataclass(frozen=True)
class Slots:
    """What this rank has of a parameter that is spread over ranks.

    experts  for each slot, the first dimension, its expert; -1: none.  None: there are no slots
    written  for each slot (or once, where there are none): does this rank write it?  One of those with a copy does
    cut      the mesh over which each expert's tensor is cut, and along which of its dimensions; None: it is not cut
    """

    experts: tuple[int, ...] | None
    written: tuple[bool, ...]
    cut: tuple[DeviceMesh, int] | None = None


@runtime_checkable
class HoldsExperts(Protocol):
    """A module that has parameters for slots of experts, not for all experts, or parts of them."""

    def expert_slots(self) -> Mapping[str, Slots]:
        """For each of its parameters and buffers that are spread over ranks: what this rank has of it."""
        ...


def model_state(model: nn.Module, rank: int, world: int, saving: bool) -> dict[str, torch.Tensor]:
    """The model's tensors, detached and not copied: what this rank holds, or with `saving` what it writes."""
    slots = slots_of(model)
    named = {name: tensor.detach() for name, tensor in model.state_dict(keep_vars=True).items() if tensor is not None}
    return _spread({"model": named}, slots, rank, world, saving)


def optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, rank: int, world: int, saving: bool
) -> dict[str, torch.Tensor]:
    """The tensors of the optimizer's state, likewise.  Those of a parameter's shape are its experts'."""
    names = parameter_names(model)
    named: dict[str, dict[str, torch.Tensor]] = {}
    for parameter, state in optimizer.state.items():
        for part, value in state.items():
            if isinstance(value, torch.Tensor):
                named.setdefault(f"{OPTIMIZER}.{part}", {})[names[parameter]] = value.detach()
    return _spread(named, slots_of(model), rank, world, saving)


def parameter_names(model: nn.Module) -> dict[torch.Tensor, str]:
    """Of each parameter of the model its name."""
    return {parameter: name for name, parameter in model.named_parameters()}


def slots_of(model: nn.Module) -> dict[str, Slots]:
    """Of each tensor of the model that is spread over ranks, what this rank has."""
    return {
        f"{prefix}.{name}".lstrip("."): slots
        for prefix, module in model.named_modules()
        if isinstance(module, HoldsExperts)
        for name, slots in module.expert_slots().items()
    }


def _experts(slots: Slots, tensor: torch.Tensor, saving: bool) -> Iterator[tuple[int, torch.Tensor]]:
    """The experts in `tensor` `[slots, ...]`, and their tensors."""
    for slot, (expert, written) in enumerate(zip(slots.experts or (), slots.written, strict=True)):
        if expert >= 0 and (written or not saving):
            yield expert, _block(slots, tensor[slot])


def _block(slots: Slots, block: torch.Tensor) -> torch.Tensor:
    if slots.cut is None:
        return block
    mesh, dimension = slots.cut
    return DTensor.from_local(block, mesh, [Shard(dimension)] * mesh.ndim, run_check=False)


def _spread(
    named: Mapping[str, Mapping[str, torch.Tensor]], slots: Mapping[str, Slots], rank: int, world: int, saving: bool
) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    shared = 0
    for kind, tensors in named.items():
        for name, tensor in tensors.items():
            at = slots.get(name)
            if at is not None and at.experts is None and tensor.dim():
                if at.written[0] or not saving:
                    found[f"{kind}.{name}"] = _block(at, tensor)
                continue
            if at is not None and at.experts is not None and tensor.shape[:1] == (len(at.experts),):
                found |= {f"{kind}.{name}.{expert}": block for expert, block in _experts(at, tensor, saving)}
                continue
            if isinstance(tensor, DTensor) or not saving or shared % world == rank:
                found[f"{kind}.{name}"] = tensor
            shared += 1
    return found
