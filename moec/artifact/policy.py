"""The policy of a layout: when a running layer may be compiled anew, and what may be changed then."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from moec.artifact.fields import Fields, InvalidManifest
from moec.artifact.traffic import MOST_EXPERTS, MOST_TOKENS, Load, load_data, read_load
from moec.formats import FORMATS

MEASURES: Mapping[str, str] = {
    "tokens": "number of tokens of a call",
    "imbalance": "load of the most chosen expert over the mean load",
    "share": "share of all choices that falls on the most chosen expert",
    "empty": "share of the experts that no token chose",
    "overflow": "share of the choices that the capacity dropped",
    "memory": "bytes of the layer's weights that are in memory",
}
"""What conditions speak of."""

COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}

DEFAULT_HYSTERESIS = 0.1
DEFAULT_GAIN = 1.05
DEFAULT_VARIANTS = 4
MOST_VARIANTS = 64
LARGEST_GAIN = 1000.0
LONGEST_CALLS = 2**31 - 1
LONGEST_SECONDS = 7 * 86400.0
LARGEST_FACTOR = 2.0**20
"""Of a capacity."""
MOST_PARTS = 256
"""Comparisons, `and`s, `or`s and `not`s in a condition."""
DEEPEST = 64
_MOST_STATEMENTS = 64
_MAX_BYTES = 2**53
_MAX_GROUP = 2**31 - 1
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Comparison:
    """`measure compare value`; bytes and shares as plain numbers."""

    measure: str
    compare: str
    value: float

    def holds(self, values: Mapping[str, float]) -> bool:
        """Whether it is true of these measures; one that is missing makes it false."""
        return self.measure in values and COMPARE[self.compare](values[self.measure], self.value)

    def widened(self, share: float) -> Condition:
        """A weaker comparison: the value is moved by this share of itself.  `==` and `!=` stay as they are."""
        by = {">": -share, ">=": -share, "<": share, "<=": share}.get(self.compare, 0.0)
        return replace(self, value=self.value * (1.0 + by))

    @property
    def measures(self) -> frozenset[str]:
        """What has to be known to tell whether it holds."""
        return frozenset((self.measure,))


@dataclass(frozen=True)
class Combination:
    """Two or more conditions of which all ("and") or at least one ("or") must hold."""

    op: str
    of: tuple[Condition, ...]

    def holds(self, values: Mapping[str, float]) -> bool:
        """Whether it is true of these measures; a comparison of one that is missing is false."""
        parts = (part.holds(values) for part in self.of)
        return all(parts) if self.op == "and" else any(parts)

    def widened(self, share: float) -> Condition:
        """A weaker condition: every comparison is widened."""
        return replace(self, of=tuple(part.widened(share) for part in self.of))

    @property
    def measures(self) -> frozenset[str]:
        """What has to be known to tell whether it holds."""
        return frozenset[str]().union(*(part.measures for part in self.of))


Condition = Comparison | Combination
"""A condition on measures.  There is no `not` in it: the compiler moves it into the comparisons."""


@dataclass(frozen=True)
class Window:
    """How long a condition has to hold: a number of calls, or of seconds; the other is None."""

    calls: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Trigger:
    """A `recompile when` statement.

    when        the condition; once it has held for `window`, compiling is considered
    text        the condition as the file has it
    hysteresis  `when.widened(hysteresis)` is enough for the window to go on; where it was false, the next window is a
                new one, while otherwise compiling is considered again only after pauses
    gain        how many times as fast a variant has to be to be worth it
    """

    when: Condition
    text: str
    window: Window
    hysteresis: float = DEFAULT_HYSTERESIS
    gain: float = DEFAULT_GAIN


@dataclass(frozen=True)
class Coldest:
    """`approx quantize coldest(experts, count) as format`: the least chosen experts may be stored in this format.

    group  how many inputs share a scale; None: one scale a channel
    scale  the element type of the scales
    """

    experts: str
    count: int
    format: str
    group: int | None
    scale: str


@dataclass(frozen=True)
class Page:
    """`page experts within bytes`: packed weights of cold experts may lie on disk; at most `bytes` are in memory."""

    experts: str
    bytes: int


@dataclass(frozen=True)
class Policy:
    """What a layout allows a running layer to become, and when.

    load          the traffic that it is made for, or None
    triggers      when compiling is considered, in the order of the file
    max_variants  how many variants there may be at a time beside the one that was compiled ahead
    tokens        ranges of tokens a call, ascending, that may have variants of their own (the same bits)
    capacity      the factors between which the capacity may be refitted (other results), or None
    quantise      alternatives for storing cold experts (other results)
    page          whether weights may lie on disk (the same bits), or None
    """

    layout: str
    load: Load | None = None
    triggers: tuple[Trigger, ...] = ()
    max_variants: int = DEFAULT_VARIANTS
    tokens: tuple[tuple[int, int], ...] = ()
    capacity: tuple[float, float] | None = None
    quantise: tuple[Coldest, ...] = ()
    page: Page | None = None

    @property
    def may_change(self) -> bool:
        """Is there anything that a new variant could have different?"""
        return bool(self.tokens or self.capacity or self.quantise)


def policy_data(policy: Policy) -> dict[str, Any]:
    """As JSON data, of which `read_policy` makes an equal policy."""
    return {
        "layout": policy.layout,
        "load": load_data(policy.load) if policy.load else None,
        "triggers": [_trigger_data(trigger) for trigger in policy.triggers],
        "max_variants": policy.max_variants,
        "tokens": [list(ends) for ends in policy.tokens],
        "capacity": list(policy.capacity) if policy.capacity else None,
        "quantise": [asdict(coldest) for coldest in policy.quantise],
        "page": asdict(policy.page) if policy.page else None,
    }


def _trigger_data(trigger: Trigger) -> dict[str, Any]:
    window = {name: value for name, value in asdict(trigger.window).items() if value is not None}
    return {
        "when": _condition_data(trigger.when),
        "text": trigger.text,
        "window": window,
        "hysteresis": trigger.hysteresis,
        "gain": trigger.gain,
    }


def _condition_data(condition: Condition) -> dict[str, Any]:
    if isinstance(condition, Comparison):
        return asdict(condition)
    return {"op": condition.op, "of": [_condition_data(part) for part in condition.of]}


def read_policy(fields: Fields) -> Policy:
    """Parse and check.  Raises InvalidManifest."""
    policy = Policy(
        layout=fields.string("layout", _NAME),
        load=read_load(fields.record("load")) if fields.given("load") else None,
        triggers=tuple(_trigger(one) for one in fields.records("triggers", 0, _MOST_STATEMENTS)),
        max_variants=fields.integer("max_variants", 1, MOST_VARIANTS),
        tokens=_ranges(fields),
        capacity=_capacity(fields) if fields.given("capacity") else None,
        quantise=tuple(_coldest(one) for one in fields.records("quantise", 0, _MOST_STATEMENTS)),
        page=_page(fields.record("page")) if fields.given("page") else None,
    )
    fields.finish()
    return policy


def _trigger(fields: Fields) -> Trigger:
    trigger = Trigger(
        _condition(fields.record("when"), [MOST_PARTS], DEEPEST),
        fields.string("text"),
        _window(fields.record("window")),
        fields.number_in("hysteresis", 0.0, 1.0),
        fields.number_in("gain", 1.0, LARGEST_GAIN),
    )
    fields.finish()
    return trigger


def _condition(fields: Fields, left: list[int], depth: int) -> Condition:
    """`left` is how many parts there may still be, `depth` how far they may lie within each other."""
    left[0] -= 1
    if left[0] < 0 or depth < 0:
        raise InvalidManifest(f"{fields.path}: the condition is too large")
    condition: Condition
    if fields.has("op"):
        op = fields.choice("op", ("and", "or"))
        condition = Combination(op, tuple(_condition(f, left, depth - 1) for f in fields.records("of", 2, MOST_PARTS)))
    else:
        condition = Comparison(
            fields.choice("measure", MEASURES), fields.choice("compare", COMPARE), fields.number("value")
        )
    fields.finish()
    return condition


def _window(fields: Fields) -> Window:
    if fields.has("calls"):
        window = Window(calls=fields.integer("calls", 1, LONGEST_CALLS))
    else:
        window = Window(seconds=fields.number_in("seconds", 0.0, LONGEST_SECONDS))
    fields.finish()
    return window


def _ranges(fields: Fields) -> tuple[tuple[int, int], ...]:
    ranges = fields.pairs("tokens", 0, MOST_TOKENS, MOST_VARIANTS)
    for before, after in pairwise(ranges):
        if before[1] >= after[0]:
            raise InvalidManifest(f"{fields.path}.tokens must be ranges in ascending order that do not overlap")
    return ranges


def _capacity(fields: Fields) -> tuple[float, float]:
    low, high = fields.numbers("capacity", 2)
    if not 0.0 < low <= high <= LARGEST_FACTOR:
        raise InvalidManifest(f"{fields.path}.capacity must be two factors above 0 in ascending order")
    return low, high


def _coldest(fields: Fields) -> Coldest:
    coldest = Coldest(
        fields.string("experts", _NAME),
        fields.integer("count", 1, MOST_EXPERTS),
        fields.choice("format", FORMATS),
        fields.integer("group", 1, _MAX_GROUP) if fields.given("group") else None,
        fields.choice("scale", ("f32", "bf16")),
    )
    fields.finish()
    return coldest


def _page(fields: Fields) -> Page:
    page = Page(fields.string("experts", _NAME), fields.integer("bytes", 1, _MAX_BYTES))
    fields.finish()
    return page
