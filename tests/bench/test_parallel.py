"""The comparison over ranks is of the same layer, and its machine file and schedules are those that it measures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import moec
from bench.parallel import compare, figures
from bench.parallel.sizes import SOURCE, Size
from moec.artifact.container import read
from moec.pipeline import Compilation
from moec.pipeline.plan import plan
from moec.schedule.machine import Machine
from tests.parallel.ranks import run

pytestmark = pytest.mark.long

RANKS = 4
SIZE = Size(d=32, ff=32, count=8, k=2, tokens=13)
MESH = {"node": 2, "gpu": 2}


def both(artifact: str, local: str) -> dict[str, Any]:
    measured = figures.on_a_rank(asdict(SIZE), artifact, MESH, alone=False, lock=None)
    calls = compare.on_a_rank(asdict(SIZE), local, {"Exact": artifact}, MESH, rounds=2, alone=False, lock=None)
    return {"figures": measured["machine"], "calls": calls}


@pytest.mark.slow
def test_the_same_layer_is_measured_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    defines = dict(SIZE.defines)
    artifact = moec.compile(SOURCE, tmp_path / "exact.so", layer="Bench", layout="Exact", defines=defines)
    local = moec.compile(SOURCE, tmp_path / "local.so", layer="Local", defines=dict(SIZE.local(RANKS)))
    ranks = run(both, RANKS, str(artifact), str(local))
    assert all(rank["calls"]["errors"]["Exact"] == 0 for rank in ranks)
    assert all(rank["calls"]["errors"]["blocking"] < 1e-5 for rank in ranks)
    found = compare.summary([rank["calls"] for rank in ranks])
    assert set(found) == {"blocking", "without", "Exact"}
    assert all(0 < one["least"] <= one["median"] <= one["most"] for one in found.values())
    names = [step["name"] for step in ranks[0]["calls"]["timelines"]["Exact"]["steps"]]
    file = tmp_path / "machine.json"
    file.write_text(ranks[0]["figures"])
    machine = Machine.read(file)
    assert machine.measured
    assert machine.links.keys() == MESH.keys()
    made = plan(Compilation(SOURCE, "Bench", defines, layout="Exact"), file, SIZE.tokens * RANKS)
    assert made.forward.seconds > 0
    assert {"route", "counts"} <= {name.partition(".")[0] for name in names}


def test_what_is_predicted_is_what_runs(tmp_path: Path) -> None:
    source, artifact = tmp_path / "layer.moe", tmp_path / "lean.so"
    source.write_text(SIZE.source(RANKS))
    Compilation(source, "Bench", dict(SIZE.defines), layout="Lean").write(artifact)
    predicted = plan(Compilation(source, "Bench", dict(SIZE.defines), layout="Lean"))
    assert predicted.tokens == SIZE.tokens * RANKS
    assert read(artifact).manifest.schedule == predicted.choice.schedules
