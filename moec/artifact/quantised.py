"""What a manifest says of quantised weights: which are kept in which format, and what the rows become."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from moec.artifact.fields import Fields, InvalidManifest
from moec.formats import FORMATS

_DOTTED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_MAX_WEIGHTS = 4096
_MAX_EXPERTS = 2**20
_MAX_GROUP = 2**31 - 1


@dataclass(frozen=True)
class Stored:
    """Weights that are kept as codes with scales.

    weights  names of the parameters, each (experts, out, in)
    scales   names of the parameters that hold their scales, in the same order; empty where the layer makes codes and
             scales itself, of the weights that it is given
    experts  which of them, by number; None: all
    format   the name of one in `moec.formats`
    group    how many inputs share a scale; None: one scale a channel
    scale    the element type of the scales
    """

    weights: tuple[str, ...]
    scales: tuple[str, ...]
    experts: tuple[int, ...] | None
    format: str
    group: int | None
    scale: str


@dataclass(frozen=True)
class Quantised:
    """The quantised linears of a layer; their results are approximations of the layer without quantisation.

    rows  "int8": every row that they multiply is rounded to int8 with a scale of its own; "float": it is taken as it is
    """

    rows: str
    stored: tuple[Stored, ...]

    @property
    def made_while_packing(self) -> Mapping[str, tuple[Stored, ...]]:
        """The weights that the layer quantises itself, by name, in the order of their first experts: less is kept of
        them than was given."""
        found: dict[str, tuple[Stored, ...]] = {}
        for one in sorted((one for one in self.stored if not one.scales), key=lambda one: one.experts or ()):
            for name in one.weights:
                found[name] = (*found.get(name, ()), one)
        return found

    @property
    def codes(self) -> Mapping[str, Stored]:
        """The weights that are given as codes, by name."""
        return {name: one for one in self.stored if one.scales for name in one.weights}

    @property
    def owners(self) -> Mapping[str, str]:
        """For scales that are given, by name, the weight whose scales they are."""
        return {scale: name for one in self.stored for name, scale in zip(one.weights, one.scales, strict=False)}


CODES = frozenset(how.element for how in FORMATS.values())
"""Element types of weights that are given as codes."""


def read_quantised(fields: Fields) -> Quantised:
    """Parse and check.  Raises InvalidManifest."""
    quantised = Quantised(
        fields.choice("rows", ("float", "int8")),
        tuple(_stored(f) for f in fields.records("stored", 1, _MAX_WEIGHTS)),
    )
    fields.finish()
    return quantised


def _stored(fields: Fields) -> Stored:
    stored = Stored(
        _names(fields, "weights", 1),
        _names(fields, "scales", 0),
        fields.integers("experts", 0, _MAX_EXPERTS, _MAX_EXPERTS) if fields.given("experts") else None,
        fields.choice("format", FORMATS),
        fields.integer("group", 1, _MAX_GROUP) if fields.given("group") else None,
        fields.choice("scale", ("f32", "bf16")),
    )
    fields.finish()
    if stored.scales and len(stored.scales) != len(stored.weights):
        raise InvalidManifest(f"{fields.path} has {len(stored.weights)} weights and {len(stored.scales)} scales")
    return stored


def _names(fields: Fields, name: str, low: int) -> tuple[str, ...]:
    names = fields.strings(name, _MAX_WEIGHTS)
    if len(names) < low or not all(_DOTTED.fullmatch(one) for one in names):
        raise InvalidManifest(f"{fields.path}.{name} must be names of parameters")
    return names


def check_weights(quantised: Quantised | None, weights: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
    """Raise InvalidManifest unless `quantised` fits the layer's weights, given as (shape, dtype) by name."""
    codes = quantised.codes if quantised else {}
    unexplained = next((name for name, (_, dtype) in weights.items() if dtype in CODES and name not in codes), None)
    if unexplained is not None:
        dtype = weights[unexplained][1]
        raise InvalidManifest(f"parameters: {unexplained!r} of {dtype} has no format under quantised.stored")
    for stored in quantised.stored if quantised else ():
        for name in (*stored.weights, *stored.scales):
            if name not in weights:
                raise InvalidManifest(f"quantised.stored: the layer has no parameter {name!r}")
        for i, name in enumerate(stored.weights):
            _check(stored, name, weights[name], weights[stored.scales[i]] if stored.scales else None)


def _check(
    stored: Stored, name: str, weight: tuple[tuple[int, ...], str], scale: tuple[tuple[int, ...], str] | None
) -> None:
    shape, dtype = weight
    fits = dtype == FORMATS[stored.format].element if scale is not None else dtype not in CODES
    if len(shape) != 3 or not fits:
        raise InvalidManifest(f"quantised.stored: {name!r} of {dtype}{list(shape)} cannot be stored so")
    experts, columns, inner = shape
    if stored.group is not None and inner % stored.group:
        raise InvalidManifest(f"quantised.stored: groups of {stored.group} do not divide {name!r}")
    if stored.experts is not None and any(number >= experts for number in stored.experts):
        raise InvalidManifest(f"quantised.stored: {name!r} has {experts} experts")
    if scale is not None:
        kept, kept_dtype = scale
        one_each = stored.group is None and kept == (experts, columns)
        groups = inner // stored.group if stored.group else 1
        if kept_dtype != stored.scale or not (one_each or kept == (experts, columns, groups)):
            raise InvalidManifest(f"quantised.stored: {kept_dtype}{list(kept)} cannot hold the scales of {name!r}")
