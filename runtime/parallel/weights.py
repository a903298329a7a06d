"""From a layer's weights to what one rank holds of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from moec.artifact.manifest import Manifest, Weight
from moec.errors import ShapeError


class OwnWeights:
    """What of each weight of the whole layer one rank holds.

    Weights that a piece has in another shape than the layer are those of routed experts (their leading axis is slots),
    of experts whose hidden dimension is cut over ranks, or both.

    whole     the layer's manifest
    held      the piece's weights by name
    slotted   names of those with a leading axis of slots
    cut       for each of them: in how many parts its other axes are cut, and which part is this rank's
    """

    def __init__(
        self, whole: Manifest, held: Mapping[str, Weight], slotted: Sequence[str], cut: Mapping[str, tuple[int, int]]
    ) -> None:
        self.whole = {weight.name: weight for weight in whole.parameters}
        self.held = dict(held)
        self.slotted = frozenset(slotted)
        self._cut = dict(cut)

    def of_expert(self, name: str, whole: torch.Tensor) -> torch.Tensor:
        """This rank's part of one expert's weight, or of one that has no slots."""
        ours = self.held[name].shape[1:] if name in self.slotted else self.held[name].shape
        parts, part = self._cut.get(name, (1, 0))
        for axis, (size, mine) in enumerate(zip(whole.shape, ours, strict=True)):
            if size != mine:
                if size != mine * parts:
                    raise ShapeError(f"weight {name!r}: {size} along axis {axis} is not {parts} times {mine}")
                whole = whole.narrow(axis, part * mine, mine)
        return whole

    def cut_axis(self, name: str) -> int | None:
        """Along which axis of one expert's tensor (or of the whole, where there are no slots) it is cut over ranks."""
        skipped = int(name in self.slotted)
        shapes = zip(self.whole[name].shape[skipped:], self.held[name].shape[skipped:], strict=True)
        return next((axis for axis, (size, mine) in enumerate(shapes) if size != mine), None)

    def of(self, name: str, whole: torch.Tensor, experts: Sequence[int]) -> torch.Tensor:
        """This rank's part of the weight of the whole layer.

        experts  the expert in each slot; -1: none, and zeros
        """
        if name not in self.slotted:
            return self.of_expert(name, whole).contiguous()
        held = self.held[name]
        found = torch.zeros(held.shape, dtype=whole.dtype, device="cpu")
        for slot, expert in enumerate(experts):
            if expert >= 0:
                found[slot] = self.of_expert(name, whole[expert])
        return found

    def gathered(
        self, state: Mapping[str, torch.Tensor], prefix: str, experts: Sequence[int]
    ) -> dict[str, torch.Tensor]:
        """A state of the whole layer, or one of single experts (`routed.gate.weight.17`), as what this rank holds.

        Keys that are neither, and weights that have this rank's shape already, stay as they are.
        """
        found = dict(state)
        for name, weight in self.held.items():
            key = prefix + name
            given = found.get(key)
            if given is not None:
                if given.shape == self.whole[name].shape and (given.shape != weight.shape or name in self.slotted):
                    found[key] = self.of(name, given, experts)
                continue
            single = {expert: f"{key}.{expert}" for expert in experts if expert >= 0}
            if name in self.slotted and all(one in found for one in single.values()):
                blocks = [self.of_expert(name, found[single[e]]) if e >= 0 else None for e in experts]
                first = next((block for block in blocks if block is not None), torch.empty(weight.shape[1:]))
                zeros = torch.zeros(weight.shape[1:], dtype=first.dtype, device="cpu")
                found[key] = torch.stack([zeros if block is None else block for block in blocks])
                for expert in range(self.whole[name].shape[0]):
                    found.pop(f"{key}.{expert}", None)
        return found
