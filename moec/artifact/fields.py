"""Checked access to the fields of a JSON object, with the path of what is wrong in each message."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

_MAX_STRING = 4096
_MAX_NUMBER = 1e300


class InvalidManifest(ValueError):
    """A field is missing, unknown, of a wrong type or out of bounds."""


@dataclass
class Fields:
    """One JSON object.  Every accessor takes a field's name, checks the value and remembers that it was read."""

    data: Mapping[str, Any]
    path: str
    seen: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, value: object, path: str = "") -> Fields:
        if not isinstance(value, dict):
            raise InvalidManifest(f"{path or 'the top'} must be an object, not {_kind(value)}")
        return cls(value, path)

    def _take(self, name: str) -> Any:
        if name not in self.data:
            raise InvalidManifest(f"{self._at(name)} is missing")
        self.seen.add(name)
        return self.data[name]

    def _at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def finish(self) -> None:
        """Refuse fields that nobody asked for: in a schema that is known they can only be a mistake."""
        unknown = sorted(set(self.data) - self.seen)
        if unknown:
            raise InvalidManifest(f"{self._at(unknown[0])} is not a known field")

    def has(self, name: str) -> bool:
        """Whether an optional field is there."""
        return name in self.data

    def given(self, name: str) -> bool:
        """Whether a field that must be there holds more than null."""
        return self._take(name) is not None

    def integers(self, name: str, low: int, high: int, most: int) -> tuple[int, ...]:
        return tuple(_integer(v, f"{self._at(name)}[{i}]", low, high) for i, v in enumerate(self._list(name, 0, most)))

    def ascending(self, name: str, high: int, most: int) -> tuple[int, ...]:
        """One or more numbers in [0, high), each above the one before."""
        return _ascending(self._take(name), self._at(name), high, most)

    def ascending_lists(self, name: str, many: int, high: int, most: int) -> tuple[tuple[int, ...], ...]:
        """At most `many` lists, each as `ascending` takes it."""
        lists = self._list(name, 1, many)
        return tuple(_ascending(v, f"{self._at(name)}[{i}]", high, most) for i, v in enumerate(lists))

    def pair(self, name: str, low: int, high: int) -> tuple[int, int]:
        """Both ends of a range, the lower one first."""
        return _pair(self._list(name, 2, 2), self._at(name), low, high)

    def pairs(self, name: str, low: int, high: int, most: int) -> tuple[tuple[int, int], ...]:
        """Ranges, each by both of its ends."""
        return tuple(_pair(v, f"{self._at(name)}[{i}]", low, high) for i, v in enumerate(self._list(name, 0, most)))

    def number(self, name: str) -> float:
        return _number(self._take(name), self._at(name))

    def number_in(self, name: str, low: float, high: float) -> float:
        number = self.number(name)
        if not low <= number <= high:
            raise InvalidManifest(f"{self._at(name)} must lie between {low:g} and {high:g}")
        return number

    def numbers(self, name: str, exactly: int) -> tuple[float, ...]:
        values = self._list(name, exactly, exactly)
        return tuple(_number(v, f"{self._at(name)}[{i}]") for i, v in enumerate(values))

    def integer(self, name: str, low: int, high: int = 2**31 - 1) -> int:
        return _integer(self._take(name), self._at(name), low, high)

    def boolean(self, name: str) -> bool:
        value = self._take(name)
        if not isinstance(value, bool):
            raise InvalidManifest(f"{self._at(name)} must be true or false, not {_kind(value)}")
        return value

    def string(self, name: str, pattern: re.Pattern[str] | None = None) -> str:
        return _string(self._take(name), self._at(name), pattern)

    def strings(self, name: str, most: int = 256) -> tuple[str, ...]:
        return tuple(_string(v, f"{self._at(name)}[{i}]", None) for i, v in enumerate(self._list(name, 0, most)))

    def choice(self, name: str, choices: Collection[str]) -> str:
        value = self._take(name)
        if not isinstance(value, str) or value not in choices:
            raise InvalidManifest(f"{self._at(name)} must be one of {', '.join(choices)}, not {_shown(value)}")
        return value

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self._take(name)
        if not isinstance(value, dict):
            raise InvalidManifest(f"{self._at(name)} must be an object, not {_kind(value)}")
        return value

    def record(self, name: str) -> Fields:
        return Fields.of(self._take(name), self._at(name))

    def records(self, name: str, low: int, high: int) -> list[Fields]:
        return [Fields.of(v, f"{self._at(name)}[{i}]") for i, v in enumerate(self._list(name, low, high))]

    def shape(self, name: str, rank: int, size: int, leading: str | None = None) -> tuple[int, ...]:
        """A list of at most `rank` dimensions in [1, size], after `leading`, when given, in front."""
        dims = self._list(name, 0, rank)
        if leading is not None:
            if not dims or dims[0] != leading:
                raise InvalidManifest(f"{self._at(name)} must begin with {leading!r}")
            dims = dims[1:]
        return tuple(_integer(v, f"{self._at(name)}[{i}]", 1, size) for i, v in enumerate(dims))

    def _list(self, name: str, low: int, high: int) -> list[Any]:
        value = self._take(name)
        if not isinstance(value, list):
            raise InvalidManifest(f"{self._at(name)} must be a list, not {_kind(value)}")
        if not low <= len(value) <= high:
            raise InvalidManifest(f"{self._at(name)} must have {low} to {high} entries, not {len(value)}")
        return value


def _integer(value: object, at: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidManifest(f"{at} must be an integer, not {_kind(value)}")
    if not low <= value <= high:
        raise InvalidManifest(f"{at} must lie between {low} and {high}")
    return value


def _number(value: object, at: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MAX_NUMBER:
        raise InvalidManifest(f"{at} must be a finite number, not {_shown(value)}")
    return float(value)


def _pair(value: object, at: str, low: int, high: int) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise InvalidManifest(f"{at} must be a list of two numbers")
    first, last = (_integer(v, f"{at}[{i}]", low, high) for i, v in enumerate(value))
    if first > last:
        raise InvalidManifest(f"{at} must begin with the lower number")
    return first, last


def _ascending(value: object, at: str, high: int, most: int) -> tuple[int, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        raise InvalidManifest(f"{at} must be a list of 1 to {most} numbers")
    numbers = tuple(_integer(v, f"{at}[{i}]", 0, high - 1) for i, v in enumerate(value))
    if any(before >= after for before, after in pairwise(numbers)):
        raise InvalidManifest(f"{at} must be in ascending order")
    return numbers


def _string(value: object, at: str, pattern: re.Pattern[str] | None) -> str:
    if not isinstance(value, str):
        raise InvalidManifest(f"{at} must be a string, not {_kind(value)}")
    if len(value) > _MAX_STRING or not value.isprintable():
        raise InvalidManifest(f"{at} must be printable and at most {_MAX_STRING} characters long")
    if pattern is not None and not pattern.fullmatch(value):
        raise InvalidManifest(f"{at} is not well formed: {_shown(value)}")
    return value


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
