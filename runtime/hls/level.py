"""The nested modules that give the tensors of a simulated layer their dotted names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from moec.artifact.manifest import Weight
from moec.runtime.dtypes import TORCH_DTYPES


class Level(nn.Module):
    """One level of names.  A tensor is on the meta device until it is given a value."""

    def place(self, weight: Weight) -> None:
        """Add a tensor without a value."""
        level: Level = self
        *path, name = weight.name.split(".")
        for part in path:
            # Written past `add_module`, which refuses names that nn.Module uses itself, such as `type`.
            level = cast(Level, level._modules.setdefault(part, Level()))
        bare = torch.empty(weight.shape, dtype=TORCH_DTYPES[weight.dtype], device="meta")
        if weight.role == "parameter":
            level._parameters[name] = nn.Parameter(bare, requires_grad=False)
        else:
            level._buffers[name] = bare

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        if not local_metadata.get("assign_to_params_buffers", False):
            for table in (self._parameters, self._buffers):
                for name, present in table.items():
                    if present is not None and present.is_meta and _fits(state_dict.get(prefix + name), present):
                        self._put(name, torch.empty_like(present, device="cpu"))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def give(self, name: str, tensor: torch.Tensor) -> None:
        """Put an ordinary tensor in the place of the one with this dotted name below this level."""
        *path, last = name.split(".")
        level: Level = self
        for part in path:
            level = cast(Level, level._modules[part])
        level._put(last, tensor)

    def _put(self, name: str, tensor: torch.Tensor) -> None:
        if name in self._parameters:
            self._parameters[name] = nn.Parameter(tensor, requires_grad=False)
        else:
            self._buffers[name] = tensor


def _fits(given: object, present: torch.Tensor) -> bool:
    return isinstance(given, torch.Tensor) and given.shape == present.shape and not given.is_meta
