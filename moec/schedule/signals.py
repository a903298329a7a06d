"""Which signals steps must wait for, from what they read and write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from moec.schedule.effects import Effects, Table, Value
from moec.schedule.steps import Schedule, Step


def with_waits(schedule: Schedule, table: Table, more: Mapping[str, Iterable[str]]) -> Schedule:
    """The schedule with the fewest signals that keep every value's readers behind its writer, and ahead of the next.

    `more` names steps that a step has to wait for besides: where something shall not overlap.
    """
    orders = _Orders()
    steps = tuple(
        orders.add(step, table.of(step), schedule.buffers, more.get(step.name, ())) for step in schedule.steps
    )
    return replace(schedule, steps=steps)


@dataclass
class _Orders:
    """Walks along the steps in their order.

    seen     for each step, how many steps of each stream have ended when it has: a vector clock
    writers  the step that wrote a place last
    readers  the steps that have read it since
    """

    seen: dict[str, dict[str, int]] = field(default_factory=dict)
    last: dict[str, str] = field(default_factory=dict)
    ticks: dict[str, tuple[str, int]] = field(default_factory=dict)
    writers: dict[tuple[str, int | None], str] = field(default_factory=dict)
    readers: dict[tuple[str, int | None], list[str]] = field(default_factory=dict)

    def add(self, step: Step, effects: Effects, buffers: int, more: Iterable[str]) -> Step:
        needs = [*more]
        for value in _sorted(effects.reads):
            needs.append(self.writers[value.place(buffers)])
        for value in _sorted(effects.writes):
            place = value.place(buffers)
            needs += [*self.readers.get(place, ()), *([self.writers[place]] if place in self.writers else [])]
        waits = self._fewest(step.stream, needs)
        clock: dict[str, int] = {}
        for name in (*waits, *([self.last[step.stream]] if step.stream in self.last else [])):
            for stream, tick in self.seen[name].items():
                clock[stream] = max(clock.get(stream, 0), tick)
        clock[step.stream] = clock.get(step.stream, 0) + 1
        self.seen[step.name], self.last[step.stream] = clock, step.name
        self.ticks[step.name] = step.stream, clock[step.stream]
        for value in effects.reads:
            self.readers.setdefault(value.place(buffers), []).append(step.name)
        for value in effects.writes:
            self.writers[value.place(buffers)], self.readers[value.place(buffers)] = step.name, []
        return replace(step, waits=waits)

    def _fewest(self, stream: str, needs: Iterable[str]) -> tuple[str, ...]:
        """Those of `needs` that nothing else implies: neither the stream's order nor another of them."""
        known = dict(self.seen[self.last[stream]]) if stream in self.last else {}
        waits: list[str] = []
        for name in sorted(set(needs), key=lambda name: sum(self.seen[name].values()), reverse=True):
            of, tick = self.ticks[name]
            if known.get(of, 0) < tick:
                waits.append(name)
                for other, ended in self.seen[name].items():
                    known[other] = max(known.get(other, 0), ended)
        return tuple(reversed(waits))


def _sorted(values: Iterable[Value]) -> list[Value]:
    return sorted(values, key=lambda value: (value.name, -1 if value.chunk is None else value.chunk))
