"""Targets, groups and the Markdown report, on cells that are made up."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bench.cell import Cell, Timing, limits_json
from bench.groups import SUITE, Group
from bench.limits import Limits
from bench.report import insert, render
from bench.routes import ROUTES, routes_for
from bench.targets import verdict

LIMITS = Limits(f32=1e9, bf16=2e9, int8=4e9, dram=1e9)


def _cell(format: str = "bf16", tokens: int = 512, mode: str = "inference", **seconds: float) -> Cell:
    """Limit: 1 s in int8, 2 s in bf16 (and for plain bf16), 4 s in f32."""
    timings = {
        name: Timing(1e-3, {"x": 2e-2} if mode == "training" else {}, [value]) for name, value in seconds.items()
    }
    return Cell("olmoe", format, mode, "uniform", tokens, 2, 4e9, 1e8, LIMITS, timings, {}, 0.0)


@pytest.mark.parametrize(
    ("ours", "peer", "expected"),
    [
        (2.1, 3.0, "met"),
        (2.3, 3.0, "limit"),
        (2.1, 2.0, "peer"),
        (2.1, 2.05, "met"),  # the peer is at the limit, moec within 3 %
        (2.5, 2.4, "limit, peer"),
    ],
)
def test_targets_of_inference(ours: float, peer: float, expected: str) -> None:
    assert verdict(_cell(moec=ours, loop=peer), "moec") == expected


def test_targets_depend_on_what_bounds_a_cell_and_on_the_format() -> None:
    assert verdict(_cell(tokens=128, moec=2.4), "moec") == "met"
    assert verdict(_cell(tokens=16, moec=2.2), "moec") == "limit"
    assert verdict(_cell(mode="training", moec=2.5), "moec") == "met"
    cell = _cell("int4", moec_int8_rows=1.35, moec_bf16_rows=2.7, ggml=2.0)
    # Each is measured by its own arithmetic; only the faster one has to beat the peer.
    assert verdict(cell, "moec_int8_rows") == "met"
    assert verdict(cell, "moec_bf16_rows") == "met"


def test_every_group_names_what_exists() -> None:
    assert len({group.name for group in SUITE}) == len(SUITE)
    for group in SUITE:
        names = group.routes or routes_for(group.format, group.mode)
        assert all(group.format in ROUTES[name].formats for name in names)
        assert group.cells == len(group.tokens) * len(group.routings)


def _file(folder: Path, group: Group, cells: list[Cell]) -> Path:
    path = folder / f"{group.name}.json"
    machine = {"processor": "a processor", "cores": 2, "packages": {"moec": "0"}}
    by = {"f32": "fma", "bf16": "vdpbf16ps", "int8": "vpdpbusd"}
    data = {
        "machine": machine,
        "threads": 2,
        "limits": limits_json(LIMITS) | {"measured_by": by},
        "group": asdict(group),
        "cells": [cell.as_json() for cell in cells],
        "skipped": {"vllm": "not here"},
    }
    path.write_text(json.dumps(data))
    return path


def test_the_report_has_every_table(tmp_path: Path) -> None:
    slow = _cell(tokens=128, moec=2.6, zentorch=2.4)
    files = [
        _file(tmp_path, Group("inference", "olmoe", "bf16"), [slow, _cell(moec=2.1, zentorch=2.4)]),
        _file(tmp_path, Group("quantised", "olmoe", "int4"), [_cell("int4", 4, moec_int8_rows=1.1, moec_bf16=3.3)]),
        _file(tmp_path, Group("training", "olmoe", "bf16"), [_cell(mode="training", moec=2.4, loop=9.0)]),
        _file(
            tmp_path, Group("sweep", "olmoe", "bf16"), [_cell(tokens=t, moec=2.0 + 2 * (t > 2)) for t in (1, 2, 3, 4)]
        ),
        _file(tmp_path, Group("threads", "olmoe", "bf16"), [_cell(moec=2.1, moec_1_thread=4.2)]),
        _file(tmp_path, Group("skew", "olmoe", "bf16"), [replace(_cell(moec=2.1), routing="one")]),
    ]
    text = render(files)
    assert "| OLMoE | moec | 2600 (1.30) | 2100 (1.05) |" in text
    assert "2400 (1.20) zentorch" in text
    assert "| moec ÷ peer | 1.08 | 0.88 |" in text
    assert "3.0×" in text  # int4 beside bf16
    assert "2e-02" in text  # the worst gradient
    assert "Largest step between neighbours: 2.00 a token, from 1 to 2." in text
    assert "| speed-up | 2.00 |" in text
    assert "OLMoE, one" in text
    assert "- vllm: not here" in text
    assert "inference, OLMoE, bf16, uniform, T = 128, moec: limit, peer (1.30 × the limit, 1.08 × zentorch)" in text


def test_a_disturbed_cell_is_marked(tmp_path: Path) -> None:
    cell = replace(_cell(moec=2.1), other_cores=0.5)
    assert "2100 (1.05)*" in render([_file(tmp_path, Group("inference", "olmoe", "bf16"), [cell])])


def test_tables_go_between_the_marks_of_a_page() -> None:
    page = "before\n<!-- results: how -->\nold\n<!-- end of results -->\nafter\n"
    new = insert(page, "new\n")
    assert new == "before\n<!-- results: how -->\n\nnew\n\n<!-- end of results -->\nafter\n"
    assert insert(new, "new\n") == new
    with pytest.raises(ValueError, match="no lines"):
        insert("nothing", "new")
