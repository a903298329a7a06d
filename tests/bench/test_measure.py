"""Measuring and reporting on a tiny layer with routes that are made up."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from bench import console as tables
from bench.cell import Cell
from bench.layer import Layer
from bench.limits import Prober
from bench.measure import Plan, measure_cell
from bench.routes import ROUTES, Unavailable
from bench.shapes import SHAPES

TINY = replace(SHAPES["olmoe"], name="tiny", d=48, ff=32, experts=6, top_k=2)


@pytest.fixture(scope="module")
def prober() -> Prober:
    return Prober(threads=1, mib_per_thread=8)


def test_a_cell_holds_times_errors_and_reasons(prober: Prober) -> None:
    layer = Layer(TINY)

    def missing(x: torch.Tensor) -> torch.Tensor:
        raise Unavailable("not here")

    routes = {"moec": ROUTES["loop"].build(layer, "f32"), "wrong": torch.zeros_like, "missing": missing}
    cell = measure_cell(layer, "f32", "uniform", 5, routes, prober, Plan(rounds=2, turn_seconds=0.001))
    assert set(cell.timings) == {"moec", "wrong"}
    assert cell.skipped == {"missing": "not here"}
    assert cell.timings["moec"].error < 1e-5
    assert cell.timings["wrong"].error == 1
    assert cell.best_peer == "wrong"
    data = json.loads(json.dumps(cell.as_json()))
    moec = data["routes"]["moec"]
    assert moec["over_limit"] == moec["seconds"] / moec["limit_seconds"]
    assert Cell.from_json(data) == cell
    for table in (tables.table([cell], "title"), tables.full_table([cell], "title")):
        console = Console(width=160, record=True, quiet=True)
        with console.capture():
            console.print(table)
        assert table.row_count == 1


def test_slow_routes_are_not_asked_for_ever(prober: Prober) -> None:
    layer = Layer(TINY)
    fast = ROUTES["loop"].build(layer, "f32")

    def slow(x: torch.Tensor) -> torch.Tensor:
        for _ in range(40):
            fast(x)
        return fast(x)

    cell = measure_cell(layer, "f32", "uniform", 1, {"moec": fast, "slow": slow}, prober, Plan(6, 0.001))
    assert len(cell.timings["slow"].turns) < len(cell.timings["moec"].turns) == 6


def test_a_report_without_moec_or_without_peers_is_printable(prober: Prober) -> None:
    layer = Layer(TINY)
    loop = ROUTES["loop"].build(layer, "f32")
    for name in ("moec", "loop"):
        cell = measure_cell(layer, "f32", "zipf", 1, {name: loop}, prober, Plan(1, 0.001))
        assert tables.table([cell], "").row_count == 1
        assert cell.as_json()["moec_over_peer"] is None
