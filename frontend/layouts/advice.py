"""Warnings about `recompile` statements: conditions that never or always hold, and what is said twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moec.artifact.policy import Trigger, Window
from moec.diagnostics import Collector, Label, Span
from moec.frontend.layouts.cells import Space, Undecided
from moec.frontend.layouts.conditions import Part
from moec.frontend.layouts.measures import Bounds, space_of


@dataclass(frozen=True)
class Written:
    """A trigger and where it is written."""

    span: Span
    trigger: Trigger
    part: Part


def advise(found: Collector, triggers: Sequence[Written], bounds: Mapping[str, Bounds], experts: int) -> None:
    """Warn of every condition that makes no sense; of one that is too large to tell nothing is said."""
    space = space_of(bounds, experts, [one.trigger.when for one in triggers])
    adviser = _Adviser(found, space, bounds)
    sensible = []
    for one in triggers:
        try:
            if adviser.whole(one.part):
                sensible.append(one)
        except Undecided:
            continue
    for i, one in enumerate(sensible):
        others = [*sensible[:i], *sensible[i + 1 :]]
        try:
            adviser.shadowed(one, others, sensible[:i])
        except Undecided:
            continue


class _Adviser:
    def __init__(self, found: Collector, space: Space, bounds: Mapping[str, Bounds]) -> None:
        self._found = found
        self._space = space
        self._bounds = bounds

    def whole(self, part: Part) -> bool:
        """Look at a condition and its parts; returns whether it holds sometimes and sometimes not."""
        if not self._space.possible(part.condition):
            self._never(part)
            return False
        if self._space.certain(part.condition):
            self._always(part)
            return False
        if part.of:
            self._parts(part)
        return True

    def shadowed(self, one: Written, others: Sequence[Written], before: Sequence[Written]) -> None:
        """Warn if another statement always acts first, or one before this acts at the same time."""
        for other in others:
            if not self._space.follows(other.trigger.when, [one.trigger.when]) or not _sooner(other, one):
                continue
            mutual = self._space.follows(one.trigger.when, [other.trigger.when]) and _sooner(one, other)
            if mutual and other not in before:
                continue
            self._found.warning(
                "W0013",
                "this statement changes nothing: another one always acts first",
                one.part.span,
                "whenever this holds" if not mutual else "holds exactly when the other does",
                also=[Label(other.part.span, "this holds, too, and has to for no longer")],
                fix="remove it, or the weaker one",
            )
            return

    def _parts(self, part: Part) -> None:
        every = part.joins == "and"
        kept = list(part.of)
        for one in reversed(part.of):
            if not self.whole(one):
                kept.remove(one)
                continue
            rest = [other for other in kept if other is not one]
            conditions = [other.condition for other in rest]
            if rest and (
                self._space.follows(one.condition, conditions)
                if every
                else self._space.covered(one.condition, conditions)
            ):
                kept.remove(one)
                self._idle(one, rest, every)

    def _idle(self, part: Part, rest: Sequence[Part], every: bool) -> None:
        follows = self._space.follows
        why = [
            other
            for other in rest
            if (follows(part.condition, [other.condition]) if every else follows(other.condition, [part.condition]))
        ]
        self._found.warning(
            "W0012",
            "a part of the condition changes nothing",
            part.span,
            "holds whenever the others do" if every else "holds only where another part does",
            also=[Label(why[0].span, "because of this")] if why else (),
            fix="remove it",
        )

    def _always(self, part: Part) -> None:
        self._found.warning(
            "W0011",
            "this condition always holds",
            part.span,
            "never false",
            notes=self._reasons(part),
            fix="compare with another number, or remove it",
        )

    def _never(self, part: Part) -> None:
        blamed, against = self._blame(part)
        self._found.warning(
            "W0010",
            "this condition can never hold",
            blamed.span,
            "never true" if against is None else "contradicts",
            also=[Label(against.span, "this")] if against else (),
            notes=self._reasons(blamed) if against is None else (),
            fix="compare with another number, or remove it" if against is None else "did you mean `or`?",
        )

    def _blame(self, part: Part) -> tuple[Part, Part | None]:
        """The smallest part that is never true, or two that contradict each other."""
        if part.joins != "and":
            return part, None
        for one in part.of:
            if not self._space.possible(one.condition):
                return self._blame(one)
        for i, second in enumerate(part.of):
            for first in part.of[:i]:
                if not self._space.possible(first.condition, second.condition):
                    return second, first
        return part, None

    def _reasons(self, part: Part) -> list[str]:
        measures = sorted(part.condition.measures)
        return [f"`{measure}`: {self._bounds[measure].why}" for measure in measures]


def _sooner(one: Written, other: Written) -> bool:
    """Does `one` ask for no more than `other`, of its window and of what comes of it?"""
    a, b = one.trigger, other.trigger
    return _within(a.window, b.window) and a.gain <= b.gain and a.hysteresis <= b.hysteresis


def _within(a: Window, b: Window) -> bool:
    if a.calls is not None and b.calls is not None:
        return a.calls <= b.calls
    return a.seconds is not None and b.seconds is not None and a.seconds <= b.seconds
