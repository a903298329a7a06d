"""The order that steps keep: those of one rank, and those of all ranks with their exchanges."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from moec.schedule.mesh import Mesh
from moec.schedule.steps import Step

Node = TypeVar("Node", bound=Hashable)


class Unordered(ValueError):
    """Steps wait for each other in a ring: `cycle` names them, the first again at the end."""

    def __init__(self, cycle: Sequence[str]) -> None:
        super().__init__(" -> ".join(cycle))
        self.cycle = tuple(cycle)


@dataclass(frozen=True)
class Order(Generic[Node]):
    """A partial order of steps.

    steps  all of them, each behind those before it
    after  for each step those that it comes right after
    """

    steps: tuple[Node, ...]
    after: Mapping[Node, frozenset[Node]]

    def before(self, one: Node, other: Node) -> bool:
        """Has `one` always ended when `other` begins?"""
        return bool(self._past[other] >> self._index[one] & 1)

    @cached_property
    def _index(self) -> Mapping[Node, int]:
        return {node: index for index, node in enumerate(self.steps)}

    @cached_property
    def _past(self) -> Mapping[Node, int]:
        """For each step all steps before it, as bits by their index."""
        past: dict[Node, int] = {}
        for node in self.steps:
            past[node] = 0
            for earlier in self.after[node]:
                past[node] |= past[earlier] | 1 << self._index[earlier]
        return past


def rank_order(steps: Sequence[Step]) -> Order[str]:
    """That of one rank's steps, by its streams and waits.  Raises Unordered."""
    return _sorted(_after(steps))


def mesh_order(programs: Sequence[Sequence[Step]], mesh: Mesh) -> Order[tuple[int, str]]:
    """That of all ranks' steps, of which rank r runs `programs[r]`.  Raises Unordered.

    An exchange is one step of its group's first rank.  Programs must be matched: the k-th exchange over some axes is
    the same on all ranks of a group.
    """
    exchanges: dict[tuple[int, tuple[str, ...]], list[str]] = {}
    for rank, steps in enumerate(programs):
        for step in steps:
            if step.collective:
                exchanges.setdefault((rank, step.axes), []).append(step.name)
    merged: dict[tuple[int, str], tuple[int, str]] = {}
    for (rank, axes), names in exchanges.items():
        first = mesh.group(rank, axes)[0]
        merged |= {(rank, name): (first, of) for name, of in zip(names, exchanges[first, axes], strict=True)}
    after: dict[tuple[int, str], frozenset[tuple[int, str]]] = {}
    for rank, steps in enumerate(programs):
        for name, earlier in _after(steps).items():
            node = merged.get((rank, name), (rank, name))
            after[node] = after.get(node, frozenset()) | {merged.get((rank, e), (rank, e)) for e in earlier}
    return _sorted(after)


def _after(steps: Sequence[Step]) -> dict[str, frozenset[str]]:
    last: dict[str, str] = {}
    found: dict[str, frozenset[str]] = {}
    for step in steps:
        found[step.name] = frozenset((*step.waits, *([last[step.stream]] if step.stream in last else [])))
        last[step.stream] = step.name
    return found


def _sorted(after: Mapping[Node, frozenset[Node]]) -> Order[Node]:
    left = {node: len(earlier) for node, earlier in after.items()}
    behind: dict[Node, list[Node]] = {node: [] for node in after}
    for node, earlier in after.items():
        for one in earlier:
            behind[one].append(node)
    order = [node for node, count in left.items() if not count]
    for node in order:
        for later in behind[node]:
            left[later] -= 1
            if not left[later]:
                order.append(later)
    if len(order) < len(after):
        raise Unordered(_ring(after, {node for node in after if left[node]}))
    return Order(tuple(order), after)


def _ring(after: Mapping[Node, frozenset[Node]], stuck: set[Node]) -> list[str]:
    """A ring among nodes each of which comes after another of them."""
    node = min(stuck, key=str)
    walked: list[Node] = []
    while node not in walked:
        walked.append(node)
        node = min((one for one in after[node] if one in stuck), key=str)
    ring = [node, *reversed(walked[walked.index(node) :])]
    return [f"{one[1]} of rank {one[0]}" if isinstance(one, tuple) else str(one) for one in ring]
