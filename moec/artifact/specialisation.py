"""What an artifact is specialised to: a range of tokens, a capacity, experts that are quantised besides."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from moec.artifact.fields import Fields, InvalidManifest
from moec.errors import ArtifactError
from moec.formats import FORMATS

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_MAX_TOKENS = 2**31 - 1
_MAX_EXPERTS = 2**20
_MAX_GROUP = 2**31 - 1
_MAX_CAPACITY = 2.0**20
_MAX_QUANTISED = 64


@dataclass(frozen=True)
class QuantisedExperts:
    """Experts that are kept as codes with scales, though the file says otherwise.

    experts  the name of their group
    numbers  which of them, ascending
    format   the name of one in `moec.formats`
    group    how many inputs share a scale; None: one scale a channel
    scale    the element type of the scales, "f32" or "bf16"
    """

    experts: str
    numbers: tuple[int, ...]
    format: str
    group: int | None
    scale: str


@dataclass(frozen=True)
class Specialisation:
    """What a variant of a layer is made for.

    name       names it among the variants of a layer, and is an identifier
    tokens     the fewest and the most tokens of a call that it is meant for; it runs others, too.  None: any
    capacity   the capacity factor instead of the file's; None: the file's
    quantised  experts that are quantised besides those that the file quantises
    exact      whether its results have the same bits as those of the layer that it is made from
    """

    name: str
    tokens: tuple[int, int] | None = None
    capacity: float | None = None
    quantised: tuple[QuantisedExperts, ...] = ()

    @property
    def exact(self) -> bool:
        return self.capacity is None and not self.quantised

    @property
    def content(self) -> tuple[tuple[int, int] | None, float | None, tuple[QuantisedExperts, ...]]:
        """All but the name."""
        return self.tokens, self.capacity, self.quantised

    def same_code(self, other: Specialisation | None) -> bool:
        """Whether both ask for the same, whatever they are called."""
        return other is not None and other.content == self.content

    @property
    def numbers(self) -> tuple[int, ...]:
        """All experts that it quantises."""
        return tuple(number for one in self.quantised for number in one.numbers)

    def to_data(self) -> Mapping[str, Any]:
        """The record as JSON data."""
        return {**asdict(self), "exact": self.exact}

    def to_json(self) -> str:
        return json.dumps(self.to_data())

    @classmethod
    def from_json(cls, text: str | bytes) -> Specialisation:
        """Parse and check.  Raises ArtifactError."""
        try:
            return cls.from_data(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"a specialisation is not valid JSON: {error}") from error

    @classmethod
    def from_data(cls, data: object) -> Specialisation:
        """Check JSON data.  Raises ArtifactError."""
        try:
            return read_specialisation(Fields.of(data, "specialisation"))
        except InvalidManifest as error:
            raise ArtifactError(f"a specialisation is malformed: {error}") from error


def read_specialisation(fields: Fields) -> Specialisation:
    """Parse and check.  Raises InvalidManifest."""
    made = Specialisation(
        fields.string("name", _NAME),
        _tokens(fields) if fields.given("tokens") else None,
        _capacity(fields) if fields.given("capacity") else None,
        tuple(_quantised(f) for f in fields.records("quantised", 0, _MAX_QUANTISED)),
    )
    if fields.boolean("exact") != made.exact:
        raise InvalidManifest(f"{fields.path}.exact must be {str(made.exact).lower()}")
    fields.finish()
    if len(set(made.numbers)) < len(made.numbers):
        raise InvalidManifest(f"{fields.path}.quantised: an expert stands there twice")
    return made


def _tokens(fields: Fields) -> tuple[int, int]:
    ends = fields.integers("tokens", 0, _MAX_TOKENS, 2)
    if len(ends) != 2 or ends[0] > ends[1]:
        raise InvalidManifest(f"{fields.path}.tokens must be the fewest and the most tokens")
    return ends[0], ends[1]


def _capacity(fields: Fields) -> float:
    factor = fields.number("capacity")
    if not 0 < factor <= _MAX_CAPACITY:
        raise InvalidManifest(f"{fields.path}.capacity must lie above 0 and up to {_MAX_CAPACITY:g}")
    return factor


def _quantised(fields: Fields) -> QuantisedExperts:
    one = QuantisedExperts(
        fields.string("experts", _NAME),
        fields.integers("numbers", 0, _MAX_EXPERTS, _MAX_EXPERTS),
        fields.choice("format", FORMATS),
        fields.integer("group", 1, _MAX_GROUP) if fields.given("group") else None,
        fields.choice("scale", ("f32", "bf16")),
    )
    fields.finish()
    if not one.numbers or list(one.numbers) != sorted(set(one.numbers)):
        raise InvalidManifest(f"{fields.path}.numbers must be numbers of experts, ascending")
    return one
