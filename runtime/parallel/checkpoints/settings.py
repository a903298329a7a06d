"""What an optimizer holds beside tensors, as JSON data, and its state made anew for what a checkpoint has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from moec.errors import CheckpointError
from moec.runtime.parallel.checkpoints.files import Stored
from moec.runtime.parallel.checkpoints.state import OPTIMIZER, parameter_names


def settings(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The settings of the optimizer's groups, and what it holds of parameters that is no tensor."""
    names = parameter_names(model)
    numbers = {
        names[parameter]: {part: value for part, value in state.items() if not isinstance(value, torch.Tensor)}
        for parameter, state in optimizer.state.items()
    }
    groups = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    return {"groups": groups, "numbers": {name: values for name, values in numbers.items() if values}}


def restore(
    model: nn.Module, optimizer: torch.optim.Optimizer, said: Mapping[str, Any], stored: Mapping[str, list[Stored]]
) -> None:
    """Give the optimizer these `settings`, and tensors of zeros for all that is `stored` for its parameters.

    Raises CheckpointError where the optimizer has other groups.
    """
    groups = said["groups"]
    if len(groups) != len(optimizer.param_groups):
        raise CheckpointError(f"saved with {len(groups)} groups of parameters, and this optimizer has another number")
    for group, values in zip(optimizer.param_groups, groups, strict=True):
        for name, value in values.items():
            group[name] = tuple(value) if isinstance(group.get(name), tuple) else value
    names = parameter_names(model)
    by_name = {name: parameter for parameter, name in names.items()}
    held = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    optimizer.state.clear()
    for name, values in said["numbers"].items():
        if by_name.get(name) in held:
            optimizer.state[by_name[name]] |= values
    for key, blocks in stored.items():
        kind, _, rest = key.partition(".")
        part, _, name = rest.partition(".")
        parameter = by_name.get(name)
        if kind == OPTIMIZER and parameter is not None and parameter in held:
            optimizer.state[parameter][part] = _blank(parameter, blocks[0])


def _blank(parameter: torch.Tensor, one: Stored) -> torch.Tensor:
    """Of the parameter's shape on this rank, or where it is of another kind (a number of steps), as it was saved."""
    if len(one.part.whole) == parameter.dim() and parameter.dim():
        return torch.zeros_like(parameter, dtype=one.part.dtype, requires_grad=False)
    return torch.zeros(one.part.whole, dtype=one.part.dtype, device="cpu")
