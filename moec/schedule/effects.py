"""What each step reads and writes on its rank: what signals are derived from and the verifier proves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from moec.schedule.steps import Schedule, Step, Wiring


@dataclass(frozen=True)
class Value:
    """A value of a rank.

    name   what it is
    chunk  of which chunk; None: of all
    ring   does it lie in one of the schedule's sets of buffers, which a later chunk uses again?
    """

    name: str
    chunk: int | None = None
    ring: bool = False

    def __str__(self) -> str:
        return self.name if self.chunk is None else f"{self.name} of chunk {self.chunk}"

    def place(self, buffers: int) -> tuple[str, int | None]:
        """Where it lies; two values of one place cannot be alive at a time."""
        return self.name, self.chunk % buffers if self.ring and self.chunk is not None else self.chunk


@dataclass(frozen=True)
class Effects:
    """What a step reads and writes.  The inputs of a call (x, dy, what forward kept) are always there and not named."""

    reads: frozenset[Value]
    writes: frozenset[Value]


Rule = Callable[[Step], tuple[Iterable[Value], Iterable[Value]]]


@dataclass(frozen=True)
class Table:
    """The effects of the steps of a schedule."""

    wiring: Wiring
    schedule: Schedule

    def of(self, step: Step) -> Effects:
        """The effects of a step.  Raises KeyError for one that its direction does not have."""
        reads, writes = self._rules[step.kind, step.way](step)
        return Effects(frozenset(reads), frozenset(writes))

    def has(self, step: Step) -> bool:
        """Does this direction of this layout have steps of its kind?"""
        return (step.kind, step.way) in self._rules and self._exists(step)

    def goals(self) -> tuple[Value, ...]:
        """What must have been made at the end."""
        ends = [Value("result")] if self.wiring.same else list(self._results)
        if self._backward:
            ends += [Value("gradients"), *(Value("dweights.experts", chunk) for chunk in range(self.schedule.chunks))]
        return tuple(ends)

    @cached_property
    def _rules(self) -> Mapping[tuple[str, str | None], Rule]:
        rules: dict[tuple[str, str | None], Rule] = {
            ("pack", None): lambda s: ([self._source], [_ring("send", s)]),
            ("exchange", "dispatch"): self._dispatch,
            ("relay", "dispatch"): lambda s: (
                [_ring(f"arrived.{s.hop - 1}", s), *self._sizes(s.hop - 1)],
                [_ring(f"forward.{s.hop}", s)],
            ),
            ("gather", "dispatch"): lambda s: (
                [_ring(f"arrived.{self._last}" if self.schedule.hops else "send", s), *self._sizes(self._last + 1)],
                [_ring("gathered", s)],
            ),
            ("experts", None): self._experts,
            ("local", None): lambda s: ([self._source], [Value("rows.local", s.chunk), *self._trained("local", s)]),
            ("reduce", "combine"): lambda s: (
                [_ring("out", s)],
                [_ring("reduced", s) if self.schedule.hops else Value("rows", s.chunk)],
            ),
            ("exchange", "combine"): self._combine,
            ("relay", "combine"): lambda s: ([_ring(f"back.{s.hop - 1}", s)], [_ring(f"sums.{s.hop}", s)]),
            ("gather", "shared"): lambda s: ([self._shared_source] if self._backward else [], [Value("shared.in")]),
            ("shared", None): lambda s: (self._shared_input, [Value("shared"), *self._trained("shared", s)]),
            ("reduce", "shared"): lambda s: ([Value("shared")], [Value("shared.sum")]),
            ("gather", "result"): lambda s: (self._results, [Value("result")]),
        }
        forward: dict[tuple[str, str | None], Rule] = {
            ("route", None): lambda s: ([], [Value("choice")]),
            ("choices", None): lambda s: ([Value("choice")], [Value("choices")]),
            ("capacity", None): lambda s: ([Value("choices")], [Value("kept")]),
            ("counts", None): lambda s: (
                [self._source, *(Value(f"sizes.{hop}") for hop in range(s.hop))],
                [Value(f"sizes.{s.hop}")],
            ),
            ("collect", None): lambda s: (
                [self._source, *self._rows(s.chunk), *self._shared_output],
                [Value("y", s.chunk)],
            ),
        }
        backward: dict[tuple[str, str | None], Rule] = {
            ("collect", None): lambda s: ([], [self._source, *([self._shared_source] if self.wiring.shared else [])]),
            ("route", None): lambda s: (
                [*self._rows(None), *self._shared_output],
                [Value("dx"), Value("dweights.route")],
            ),
            ("gradients", None): lambda s: (
                [Value("dweights.route"), *([Value("dweights.shared")] if self.wiring.shared else [])],
                [Value("gradients")],
            ),
        }
        return rules | (backward if self._backward else forward)

    def _exists(self, step: Step) -> bool:
        """Of the kinds that some layouts and schedules only have."""
        wiring, schedule = self.wiring, self.schedule
        match step.kind, step.way:
            case "choices" | "capacity", _:
                return wiring.capacity
            case "exchange", _:
                return step.hop in range(len(schedule.hops))
            case "relay", _:
                return step.hop in range(1, len(schedule.hops))
            case "counts", _:
                return step.hop in range(len(schedule.hops) + bool(wiring.tp))
            case "local", _:
                return schedule.local_first and self.near_in_chunks == (step.chunk is not None)
            case "shared", _:
                return wiring.shared
            case _, "result":
                return bool(wiring.same)
        return step.collective is False or bool(self.axes(step))

    def axes(self, step: Step) -> tuple[str, ...]:
        """The axes that a step of its kind, way and hop goes over."""
        wiring, hops = self.wiring, self.schedule.hops
        if not step.collective:
            return ()
        match step.kind, step.way:
            case "choices" | "gradients", _:
                return wiring.mesh
            case "counts", _:
                return (*hops, wiring.tp)[step.hop]
            case "exchange", "dispatch":
                return hops[step.hop]
            case "exchange", _:
                return hops[self._last - step.hop]
            case "gather", "shared":
                return wiring.shared_tp if self._backward else wiring.shared_gather
            case _, "shared":
                return wiring.shared_tp
            case _, "result":
                return wiring.same
        return wiring.tp

    @property
    def _backward(self) -> bool:
        return self.schedule.direction == "backward"

    @cached_property
    def near_in_chunks(self) -> bool:
        """Is what stays on a rank computed chunk by chunk?"""
        return any(step.kind == "local" and step.chunk is not None for step in self.schedule.steps)

    @property
    def _last(self) -> int:
        return len(self.schedule.hops) - 1

    @property
    def _source(self) -> Value:
        """What tells which rows go where: the choice; backward, the rows themselves."""
        return Value("dsum" if self._backward else "kept" if self.wiring.capacity else "choice")

    @property
    def _shared_source(self) -> Value:
        return Value("dshared")

    @property
    def _shared_input(self) -> list[Value]:
        if self.wiring.shared_tp if self._backward else self.wiring.shared_gather:
            return [Value("shared.in")]
        return [self._shared_source] if self._backward else []

    @property
    def _shared_output(self) -> list[Value]:
        return [Value("shared.sum" if self.wiring.shared_tp else "shared")] if self.wiring.shared else []

    @property
    def _results(self) -> list[Value]:
        if self._backward:
            return [Value("dx")]
        return [Value("y", chunk) for chunk in collected(self.schedule)]

    def _rows(self, chunk: int | None) -> list[Value]:
        chunks = range(self.schedule.chunks) if chunk is None else (chunk,)
        near = [] if not self.schedule.local_first else list(chunks) if self.near_in_chunks else [None]
        return [*(Value("rows", number) for number in chunks), *(Value("rows.local", number) for number in near)]

    def _sizes(self, hop: int) -> list[Value]:
        """Backward they are known from the forward."""
        return [] if self._backward else [Value(f"sizes.{hop}")]

    def _trained(self, what: str, step: Step) -> list[Value]:
        return [Value(f"dweights.{what}", step.chunk)] if self._backward else []

    def _dispatch(self, step: Step) -> tuple[list[Value], list[Value]]:
        source = _ring("send" if step.hop == 0 else f"forward.{step.hop}", step)
        return [source, *self._sizes(step.hop)], [_ring(f"arrived.{step.hop}", step)]

    def _experts(self, step: Step) -> tuple[list[Value], list[Value]]:
        source = _ring("gathered" if self.wiring.tp else f"arrived.{self._last}", step)
        return [source], [_ring("out", step), *self._trained("experts", step)]

    def _combine(self, step: Step) -> tuple[list[Value], list[Value]]:
        first = "reduced" if self.wiring.tp else "out"
        source = _ring(first if step.hop == 0 else f"sums.{step.hop}", step)
        target = Value("rows", step.chunk) if step.hop == self._last else _ring(f"back.{step.hop}", step)
        return [source, *self._sizes(self._last - step.hop)], [target]


def collected(schedule: Schedule) -> tuple[int | None, ...]:
    """The chunks of forward's `collect` steps: where chunks are ranges of tokens, each is done by itself."""
    return tuple(range(schedule.chunks)) if schedule.split == "tokens" else (None,)


def _ring(name: str, step: Step) -> Value:
    return Value(name, step.chunk, ring=True)
