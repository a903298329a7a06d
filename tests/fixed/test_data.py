"""Records and their data: what is written is read again, and what is wrong is named."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from moec.fixed.data import as_data, read_board, read_design, read_layer
from moec.fixed.spec import Activation, Expert
from tests.fixed.samples import BOARD, DESIGN, EDGE


def test_what_is_written_is_read_again() -> None:
    shared = replace(EDGE, shared=2, common=Expert(64, Activation.GELU, True, False))
    assert read_layer(json.loads(json.dumps(as_data(EDGE)))) == EDGE
    assert read_layer(json.loads(json.dumps(as_data(shared)))) == shared
    assert read_board(json.loads(json.dumps(as_data(BOARD)))) == BOARD
    assert read_design(json.loads(json.dumps(as_data(DESIGN)))) == DESIGN


def changed(path: str, value: Any) -> dict[str, Any]:
    """The data of the design with one value replaced, or left out where it is `...`."""
    data = as_data(DESIGN)
    *outer, last = path.split(".")
    place = data
    for name in outer:
        place = place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("layer.width", 0, "layer.width must lie between 1"),
        ("layer.width", 192.0, "must be of type int"),
        ("layer.width", True, "must be of type int"),
        ("layer.width", ..., "layer.width is missing"),
        ("layer.weights", "int5", "must be one of int8"),
        ("layer.router.slots", 17, "router.slots"),
        ("layer.router.over", "some", "must be 'all' or 'chosen'"),
        ("layer.router.scale", float("nan"), "router.scale"),
        ("layer.name", "a; rm -rf", "not an identifier"),
        ("layer.shared", 1, "layer.common"),
        ("layer.colour", "red", "not a known field"),
        ("board.part", "a b", "board.part may have letters"),
        ("board.part", "../x", "board.part may have letters"),
        ("board.clock", 1.0, "board.clock"),
        ("board.port_bits", 100, "board.port_bits"),
        ("ports", 5, "design.ports must lie between 1 and 4"),
        ("ports", 3, "power of two"),
        ("port_bits", 256, "design.port_bits"),
        ("tokens", 0, "design.tokens"),
        ("layer.shared", 2**16, "computed by experts"),
        ("order", "sideways", "must be one of expert, token"),
        ("layer", [], "must be an object"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: Any, said: str) -> None:
    data = changed(path, value)
    if path == "layer.shared" and value > 1:
        data["layer"]["common"] = data["layer"]["routed"]
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        read_design(data)
