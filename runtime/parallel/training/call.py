"""What a step of training keeps from forward to backward, and what backward has computed so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from moec.placement.table import Table
from moec.runtime.parallel.call import Call
from moec.runtime.parallel.messages import Numbers
from moec.runtime.parallel.training.pieces import TrainedPieces


@dataclass(frozen=True)
class Done:
    """A piece that ran forward: what it was given, and what its backward needs."""

    inputs: Sequence[torch.Tensor]
    saved: Sequence[torch.Tensor]


@dataclass(kw_only=True)
class TrainingCall(Call):
    """A forward call whose gradients may be asked for.

    trained     the pieces
    parameters  of each of them, by its name
    done        the pieces that ran, by name; of `experts` one for each chunk
    table       where experts were
    orders      of a chunk, the order in which its pairs were computed, where they came in another
    losses      loss tensors by name, of this rank's share
    """

    trained: TrainedPieces
    parameters: Mapping[str, Sequence[torch.Tensor]]
    table: Table
    done: dict[tuple[str, int], Done] = field(default_factory=dict)
    orders: dict[int, Numbers] = field(default_factory=dict)
    losses: dict[str, torch.Tensor] = field(default_factory=dict)


class Fresh:
    """Memory that is used once: what a call has computed may be needed later."""

    def take(self, name: object, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A contiguous tensor without values."""
        return torch.empty(shape, dtype=dtype, device="cpu")


@dataclass
class Travelling:
    """The gradients of one chunk on their way.

    rows     what travels next
    memory   what has arrived
    out      for each pair (or sum of pairs) the gradient of its row, then what comes back
    weights  f32 [pairs, 1] the gradients of the pairs' weights, likewise
    """

    rows: torch.Tensor = field(init=False)
    memory: torch.Tensor = field(init=False)
    out: torch.Tensor = field(init=False)
    weights: torch.Tensor = field(init=False)


@dataclass
class Backward:
    """A backward call.

    call       the forward call
    seeds      gradients of loss tensors by name, of this rank's share
    chunks     what travels
    dy         [T, N] the gradient of the result: of all that is added up to it
    encoded    `dy` as it travels
    everyone   [T', N] `dy` of all tokens of the ranks among which shared experts' hidden dimension is cut
    shared     gradients of the layer's inputs by name, as shared experts give them
    rows       f32 [T * K, d] the gradients of tokens by pair
    weights    f32 [T * K, 1] those of the weights
    tokens     gradients of the layer's inputs by name: of the share, in the end of all tokens that the rank was given
    parameters gradients by piece and name
    factor     of these: 1 for the sum of the ranks' losses, less for their mean
    """

    call: TrainingCall
    seeds: Mapping[str, torch.Tensor]
    dy: torch.Tensor
    chunks: list[Travelling]
    encoded: torch.Tensor = field(init=False)
    everyone: torch.Tensor = field(init=False)
    rows: torch.Tensor = field(init=False)
    weights: torch.Tensor = field(init=False)
    shared: dict[str, torch.Tensor] = field(default_factory=dict)
    tokens: dict[str, torch.Tensor] = field(default_factory=dict)
    parameters: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    factor: float = 1.0
