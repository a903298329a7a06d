"""Can a condition hold at all?  Does one follow from another?

Between the numbers that conditions compare a measure with, no comparison changes: the values of a measure fall into
cells, of which a comparison holds in some.  A search over boxes of cells then gives exact answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from moec.artifact.policy import Combination, Comparison, Condition

MOST_WORK = 1_000_000
"""Comparisons that are looked at for all questions about the conditions of a layout."""


class Undecided(Exception):
    """The searches took too long, and are given up."""


@dataclass(frozen=True)
class Axis:
    """The values that something can take: all from `low` to `high` (None: without end)."""

    low: Fraction
    high: Fraction | None


@dataclass(frozen=True)
class Scaled:
    """A measure as what is on an axis: its value times `factor` is that of the axis."""

    axis: str
    factor: Fraction = Fraction(1)


_Box = Mapping[str, int]
"""The cells that are left of each axis, as bits."""


@dataclass(frozen=True)
class _Atom:
    axis: str
    cells: int


@dataclass(frozen=True)
class _Both:
    every: bool
    of: tuple[_Formula, ...]


_Formula = _Atom | _Both


class Space:
    """Answers questions about conditions whose numbers are among those of `conditions`."""

    def __init__(
        self, axes: Mapping[str, Axis], measures: Mapping[str, Scaled], conditions: Iterable[Condition]
    ) -> None:
        comparisons = {one for condition in conditions for one in _comparisons(condition)}
        places = {one: _place(one, measures[one.measure]) for one in comparisons}
        marks = {name: sorted({mark for axis, mark in places.values() if axis == name}) for name in axes}
        self._whole_space = {name: _inhabited(axis, marks[name]) for name, axis in axes.items()}
        numbers = {name: {mark: i for i, mark in enumerate(marks[name])} for name in axes}
        self._atoms = {
            one: _Atom(axis, _cells(one.compare, numbers[axis][mark]) & self._whole_space[axis])
            for one, (axis, mark) in places.items()
        }
        self._left = MOST_WORK

    def possible(self, *conditions: Condition) -> bool:
        """Can all of them hold at once?  Raises Undecided."""
        return self._ask([self._formula(one) for one in conditions])

    def certain(self, condition: Condition) -> bool:
        """Does it always hold?  Raises Undecided."""
        return not self._ask([self._negated(self._formula(condition))])

    def follows(self, condition: Condition, given: Iterable[Condition]) -> bool:
        """Does it hold whenever all of `given` do?  Raises Undecided."""
        return not self._ask([*map(self._formula, given), self._negated(self._formula(condition))])

    def covered(self, condition: Condition, by: Iterable[Condition]) -> bool:
        """Does at least one of `by` hold whenever it does?  Raises Undecided."""
        return not self._ask([self._formula(condition), *(self._negated(self._formula(one)) for one in by)])

    def _formula(self, condition: Condition) -> _Formula:
        self._spend()
        if isinstance(condition, Combination):
            return _Both(condition.op == "and", tuple(map(self._formula, condition.of)))
        return self._atoms[condition]

    def _negated(self, formula: _Formula) -> _Formula:
        if isinstance(formula, _Both):
            return _Both(not formula.every, tuple(map(self._negated, formula.of)))
        return _Atom(formula.axis, self._whole_space[formula.axis] & ~formula.cells)

    def _spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Undecided

    def _ask(self, formulas: list[_Formula]) -> bool:
        if not all(self._whole_space.values()):
            return False
        return self._search(_Both(True, tuple(formulas)))

    def _search(self, formula: _Formula) -> bool:
        """Is there a cell in which the formula holds?"""
        boxes: list[_Box] = [self._whole_space]
        while boxes:
            box = boxes.pop()
            verdict = self._judge(formula, box)
            if verdict is True:
                return True
            if isinstance(verdict, _Atom):
                rest = box[verdict.axis]
                boxes += ({**box, verdict.axis: side} for side in (rest & ~verdict.cells, rest & verdict.cells))
        return False

    def _judge(self, formula: _Formula, box: _Box) -> bool | _Atom:
        """What the formula is in every cell of the box, or a comparison that is not the same in all of them."""
        self._spend()
        if isinstance(formula, _Atom):
            inside = box[formula.axis] & formula.cells
            if not inside:
                return False
            return True if inside == box[formula.axis] else formula
        open_: _Atom | None = None
        for part in formula.of:
            verdict = self._judge(part, box)
            if isinstance(verdict, _Atom):
                open_ = open_ or verdict
            elif verdict is not formula.every:
                return verdict
        return formula.every if open_ is None else open_


def _place(comparison: Comparison, measure: Scaled) -> tuple[str, Fraction]:
    """Where its number lies: on which axis, and at which value of that."""
    return measure.axis, Fraction(repr(comparison.value)) * measure.factor


def _cells(compare: str, mark: int) -> int:
    """The cells in which a comparison with a mark holds."""
    here = 1 << 2 * mark + 1
    below = here - 1
    above = ~(below | here)
    return {
        "<": below,
        "<=": below | here,
        ">": above,
        ">=": above | here,
        "==": here,
        "!=": below | above,
    }[compare]


def _comparisons(condition: Condition) -> Iterable[Comparison]:
    if isinstance(condition, Comparison):
        return (condition,)
    return (one for part in condition.of for one in _comparisons(part))


def _inhabited(axis: Axis, marks: list[Fraction]) -> int:
    """The cells that hold a value: bit 2i is that between mark i - 1 and mark i, bit 2i + 1 mark i itself."""
    cells = 0
    for i in range(len(marks) + 1):
        before = marks[i - 1] if i else None
        after = marks[i] if i < len(marks) else None
        cells |= _between(axis, before, after) << 2 * i
        if after is not None:
            cells |= _holds(axis, after) << 2 * i + 1
    return cells


def _holds(axis: Axis, value: Fraction) -> bool:
    return axis.low <= value and (axis.high is None or value <= axis.high)


def _between(axis: Axis, before: Fraction | None, after: Fraction | None) -> bool:
    """Is a value of the axis above `before` and below `after`?"""
    starts = axis.high is None or (axis.low <= axis.high and (before is None or before < axis.high))
    return starts and (after is None or axis.low < after)
