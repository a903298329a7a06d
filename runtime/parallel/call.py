"""What one call of a layer has computed so far on a rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch

from moec.placement.lookup import Lookup
from moec.runtime.parallel.arrival import Arrival, Relay
from moec.runtime.parallel.departure import Departure, Ints
from moec.runtime.parallel.messages import Counts
from moec.runtime.parallel.pieces import Pieces


class Memory(Protocol):
    """Where a call's tensors lie."""

    def take(self, name: object, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A contiguous tensor without values; the same name may have the memory that it had in an earlier call."""
        ...


@dataclass(frozen=True)
class Sizes:
    """What one hop brings: pairs and rows of each message, `[chunks, positions]`."""

    pairs: Counts
    rows: Counts


@dataclass
class Chunk:
    """The rows of one chunk on their way.

    rows     what travels next, and how many rows of it to each position
    relay    between two hops
    arrival  the pairs that this rank computes, and `memory`, whose rows they name; `[n, d]` as the experts read it
    out      the experts' results, then what comes back, until it lies where `collect` reads it
    """

    rows: torch.Tensor = field(init=False)
    heights: Counts = field(init=False)
    relay: Relay = field(init=False)
    arrival: Arrival = field(init=False)
    memory: torch.Tensor = field(init=False)
    out: torch.Tensor = field(init=False)


@dataclass
class Call:
    """One call.

    pieces     what computes
    memory     where tensors lie
    lookup     where experts are
    inputs     the layer's, by name, of this rank's own share of the tokens
    given      the same of all tokens that the rank was given
    outputs    the layer's, by name, of the share
    tokens     of the share
    index, weight  [T, K] choices; after a capacity those that it kept
    choices    index and weight's bits of the whole batch, i32 [T', 2 K], and where this rank's own begin
    departure, described  the messages, and what they say of pairs
    sizes      of each hop, then of the gather behind them
    passed     i64 [source of hop 0, chunks, positions of hop 1, 2]: pairs and rows that hop 1 will pass on
    origins    i64 [source of hop 1, chunks, sources of hop 0, 2]: whose they are
    encoded    the rows that travel, as they travel
    returned   f32 [T * K and some more, N]: the rows that `collect` adds up
    terms      of shared experts, by name
    everyone   where ranks share a shared expert: the inputs of all tokens that it is computed for, by name
    near_tokens  of which each rank that gathered them was given so many
    results    what the caller gets, by name
    """

    pieces: Pieces
    memory: Memory
    lookup: Lookup
    inputs: Mapping[str, torch.Tensor]
    given: Mapping[str, torch.Tensor]
    outputs: Mapping[str, torch.Tensor]
    results: Mapping[str, torch.Tensor]
    tokens: int
    chunks: list[Chunk]
    index: torch.Tensor = field(init=False)
    weight: torch.Tensor = field(init=False)
    choices: tuple[torch.Tensor, int] = field(init=False)
    departure: Departure = field(init=False)
    described: Ints = field(init=False)
    passed: Counts = field(init=False)
    origins: Counts = field(init=False)
    encoded: torch.Tensor = field(init=False)
    returned: torch.Tensor = field(init=False)
    everyone: dict[str, torch.Tensor] = field(init=False)
    near_tokens: list[int] = field(init=False)
    sizes: dict[int, Sizes] = field(default_factory=dict)
    terms: dict[str, torch.Tensor] = field(default_factory=dict)
