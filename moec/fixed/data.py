"""Records of layers, boards and designs as JSON data, and back with everything checked.

The data may come from a stranger: from a board's file, from the IR, from a project's manifest.  Names go into scripts
and generated code, so they are of letters that mean nothing there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from enum import StrEnum
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from moec.fixed.design import Board, Design
from moec.fixed.interface import Interface
from moec.fixed.limits import reasons
from moec.fixed.spec import Expert, Layer

_Record = TypeVar("_Record")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_WIDEST = 2**16
_MOST = 2**31 - 1
MOST_ITEMS = 2**20
"""Pairs of a token and an expert in one call: more than any device keeps, and few enough to be gone through."""

_PORT_BITS = (64, 128, 256, 512, 1024)


def as_data(record: Layer | Board | Design | Interface) -> dict[str, Any]:
    """Objects, lists, strings and numbers that say what the record says."""
    return asdict(record)


def read_layer(data: object) -> Layer:
    """The layer of its data.  Raises ValueError that names what is wrong."""
    layer = record(Layer, data, "layer")
    _check_layer(layer)
    return layer


def read_board(data: object) -> Board:
    """The board of its data.  Raises ValueError that names what is wrong."""
    board = record(Board, data, "board")
    _check_board(board)
    return board


def read_design(data: object) -> Design:
    """The design of its data.  Raises ValueError that names what is wrong."""
    design = record(Design, data, "design")
    _check_layer(design.layer)
    _check_board(design.board)
    for name, most in (("inputs", _WIDEST), ("outputs", _WIDEST), ("ports", design.board.ports)):
        value = getattr(design, name)
        _within(f"design.{name}", value, 1, most)
        if value.bit_count() > 1:
            raise ValueError(f"design.{name} must be a power of two, not {value}")
    _within("design.tokens", design.tokens, 1, _WIDEST)
    items = design.tokens * (design.layer.router.slots + design.layer.shared)
    _within("what design.tokens have to be computed by experts", items, 1, MOST_ITEMS)
    if design.port_bits not in _PORT_BITS or design.port_bits > design.board.port_bits:
        raise ValueError(f"design.port_bits cannot be {design.port_bits} on a board of {design.board.port_bits}")
    return design


def read_interface(data: object) -> Interface:
    """The interface of its data.  Raises ValueError that names what is wrong."""
    return record(Interface, data, "interface")


def _check_layer(layer: Layer) -> None:
    if not _IDENTIFIER.fullmatch(layer.name):
        raise ValueError(f"layer.name is not an identifier: {layer.name!r}")
    _within("layer.width", layer.width, 1, _WIDEST)
    _within("layer.experts", layer.experts, 1, _WIDEST)
    _within("layer.shared", layer.shared, 0, _WIDEST)
    _within("layer.router.slots", layer.router.slots, 1, layer.experts)
    _within("layer.router.tasks", layer.router.tasks, 1, _WIDEST)
    if layer.router.over not in ("all", "chosen"):
        raise ValueError(f"layer.router.over must be 'all' or 'chosen', not {layer.router.over!r}")
    if not 0 < layer.router.scale <= _WIDEST:
        raise ValueError(f"layer.router.scale must lie between 0 and {_WIDEST}")
    if (layer.common is not None) != (layer.shared > 0):
        raise ValueError("layer.common must be given exactly where there are shared experts")
    _check_expert("layer.routed", layer.routed)
    if layer.common is not None:
        _check_expert("layer.common", layer.common)
    for why in reasons(layer):
        raise ValueError(f"layer cannot be: {why}")


def _check_expert(path: str, expert: Expert) -> None:
    _within(f"{path}.hidden", expert.hidden, 1, _WIDEST)


def _check_board(board: Board) -> None:
    for name in ("name", "part", "platform"):
        value = getattr(board, name)
        if value is not None and not _NAME.fullmatch(value):
            raise ValueError(f"board.{name} may have letters, digits, `_`, `.` and `-` only: {value!r}")
    for name, low in (("dsp", 0), ("bram", 1), ("uram", 0), ("lut", 1), ("ff", 1)):
        _within(f"board.{name}", getattr(board, name), low, _MOST)
    _within("board.ports", board.ports, 1, 1024)
    if board.port_bits not in _PORT_BITS:
        raise ValueError(f"board.port_bits must be one of {', '.join(map(str, _PORT_BITS))}, not {board.port_bits}")
    for name, most in (("bandwidth", 1e15), ("clock", 2e9)):
        if not 1e6 <= getattr(board, name) <= most:
            raise ValueError(f"board.{name} must lie between 1e6 and {most:g}")


def _within(path: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{path} must lie between {low} and {high}, not {value}")


def record(kind: type[_Record], data: object, path: str) -> _Record:
    """A frozen dataclass of the fields in `data`; each must be there and be what its annotation says.

    Raises ValueError that names what is wrong by its `path`.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{path} must be an object")
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in data:
        if name not in names:
            raise ValueError(f"{path}.{name} is not a known field; the fields are: {', '.join(names)}")
    for name in names:
        if name not in data:
            raise ValueError(f"{path}.{name} is missing")
    return kind(**{name: _value(hints[name], data[name], f"{path}.{name}") for name in names})


def _value(kind: Any, value: object, path: str) -> Any:
    options = get_args(kind)
    if NoneType in options:
        (kind,) = (option for option in options if option is not NoneType)
        if value is None:
            return None
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or len(value) > _WIDEST:
            raise ValueError(f"{path} must be a list of at most {_WIDEST} entries")
        return tuple(_value(options[0], one, f"{path}[{number}]") for number, one in enumerate(value))
    if is_dataclass(kind):
        return record(kind, value, path)  # type: ignore[arg-type]
    if issubclass(kind, StrEnum):
        if value not in list(kind):
            raise ValueError(f"{path} must be one of {', '.join(kind)}, not {value!r}")
        return kind(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{path} must be of type {kind.__name__}, not {type(value).__name__}")
    return value
