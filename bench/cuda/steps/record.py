"""What an artifact says of its kernels: its member `cuda/kernels.json` (`moec/backends/cuda/record.py`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moec.artifact.container import read

MEMBER = "cuda/kernels.json"
ALIGN = 256
"""Of the areas of a workspace, in bytes."""


@dataclass(frozen=True)
class Value:
    """A tensor, or a scalar of a region, whose shape is None.

    shape  -1 for the dimension that depends on the number of tokens, of which each has `rows` at most
    name   of an input, a parameter or an output
    """

    dtype: str
    shape: tuple[int, ...] | None
    rows: int
    name: str | None


@dataclass(frozen=True)
class Operation:
    """An operation of the kernel level; operands and results are numbers of values."""

    name: str
    operands: tuple[int, ...]
    results: tuple[int, ...]
    attributes: Mapping[str, Any]
    regions: tuple[Block, ...]

    def segments(self) -> list[tuple[int, ...]]:
        """The operands by the groups that the operation has of them."""
        found, at = [], 0
        for count in self.attributes["operandSegmentSizes"]:
            found.append(self.operands[at : at + count])
            at += count
        return found


@dataclass(frozen=True)
class Block:
    """A region's arguments and operations, the last of which yields."""

    arguments: tuple[int, ...]
    operations: tuple[Operation, ...]

    @property
    def yielded(self) -> tuple[int, ...]:
        return self.operations[-1].operands


@dataclass(frozen=True)
class Area:
    """`per_token * T + fixed` bytes of the workspace: those of `value`, or a buffer that belongs to it."""

    per_token: int
    fixed: int
    value: int | None
    buffer: str | None

    @property
    def numbers(self) -> bool:
        """Whether it is a buffer of integers; others are of floats."""
        return self.buffer not in (None, "rows") and not str(self.buffer).startswith("partial sums")


@dataclass(frozen=True)
class Kernel:
    """A launch; it writes values and areas, by their numbers."""

    name: str
    operation: int
    first: int
    end: int | None
    values: tuple[int, ...]
    areas: tuple[int, ...]

    def launched(self, tokens: int) -> bool:
        """Whether calls of so many tokens launch it; a kernel of blocks of tokens does nothing where there are none."""
        return self.first <= tokens and (self.end is None or tokens < self.end)


@dataclass(frozen=True)
class Code:
    """A function on one architecture."""

    areas: tuple[Area, ...]
    kernels: tuple[Kernel, ...]

    def places(self, tokens: int) -> list[slice]:
        """The bytes of each area in the workspace of a call."""
        found, at = [], 0
        for area in self.areas:
            size = area.per_token * tokens + area.fixed
            found.append(slice(at, at + size))
            at += -(-size // ALIGN) * ALIGN
        return found


@dataclass(frozen=True)
class Function:
    """A function of a layer."""

    values: tuple[Value, ...]
    operations: tuple[Operation, ...]
    given: tuple[int, ...]
    parameters: tuple[int, ...]
    code: Mapping[str, Code]
    makers: Mapping[int, Operation] = field(repr=False)
    """The operation that makes a value."""


def functions(path: Path) -> dict[str, Function]:
    """By name: `run`, and `forward` and `backward` where the layer can be trained.

    Raises ValueError where the artifact was made by a moec that did not describe its kernels.
    """
    text = read(path).texts.get(MEMBER)
    if text is None:
        raise ValueError(f"{path} does not describe its kernels: compile it again")
    return parsed(text)


def parsed(text: str) -> dict[str, Function]:
    """The functions that the member's text describes."""
    return {name: _function(one) for name, one in json.loads(text)["functions"].items()}


def _function(made: Any) -> Function:
    operations = tuple(map(_operation, made["operations"]))
    return Function(
        tuple(_value(one) for one in made["values"]),
        operations,
        tuple(made["given"]),
        tuple(made["parameters"]),
        {name: _code(one) for name, one in made["architectures"].items()},
        {result: op for op in operations for result in op.results},
    )


def _value(made: Any) -> Value:
    shape = tuple(made["shape"]) if "shape" in made else None
    return Value(made["type"], shape, made.get("rows", 0), made.get("name"))


def _operation(made: Any) -> Operation:
    regions = tuple(
        Block(tuple(one["arguments"]), tuple(map(_operation, one["operations"]))) for one in made.get("regions", ())
    )
    return Operation(made["name"], tuple(made["operands"]), tuple(made["results"]), made["attributes"], regions)


def _code(made: Any) -> Code:
    areas = tuple(Area(one["per_token"], one["fixed"], one.get("value"), one.get("buffer")) for one in made["areas"])
    return Code(areas, tuple(map(_kernel, made["kernels"])))


def _kernel(made: Any) -> Kernel:
    first, end = made["tokens"]
    values = tuple(one["value"] for one in made["writes"] if "value" in one)
    areas = tuple(one["area"] for one in made["writes"] if "area" in one)
    return Kernel(made["name"], made["operation"], first, end, values, areas)
