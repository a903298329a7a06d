"""`moec trace` says what a trace holds, and which `load` says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from moec.artifact.traffic import Zipf
from moec.cli.app import app
from moec.cli.trace import fitted
from moec.frontend import check_file
from moec.trace import Header, Sample, TraceWriter

LAYER = """edition 1

layer Demo(d = 8, ff = 4) {
  router softmax_top(2)
  experts routed[4] = mlp_relu(d, ff)
}

layout Serve for Demo under Recorded {
}

"""


def run(path: Path) -> Result:
    return CliRunner().invoke(app, ["trace", str(path)], env={"COLUMNS": "120"})


def recorded(path: Path, *samples: Sample) -> Path:
    with TraceWriter(path, Header("Demo", 4, 2)) as writer:
        for sample in samples:
            writer.write(sample)
    return path


def test_what_it_says(tmp_path: Path) -> None:
    path = recorded(
        tmp_path / "a.trace",
        Sample(1790000000.0, 3, (3, 0, 2, 1)),
        Sample(1790000060.0, 69, (60, 0, 60, 12), 3, {1: 2, 64: 1}),
    )
    done = run(path)
    assert done.exit_code == 0
    for expected in (
        "4 experts, 2 for each token",
        "4 with 72 tokens in 2 samples",
        "60 s from 2026-09-21 14:13:20 UTC",
        "1.83, where 1 is even",
        "0 (45.65%), 2 (44.93%), 3 (9.42%), 1 (0.00%)",
        "1 (0.00%), 3 (9.42%), 2 (44.93%), 0 (45.65%)",
        "1 experts",
        "64 to 127",
    ):
        assert expected in done.output
    load = re.search(r"load Recorded \{.*?\n\}\n", done.output, re.DOTALL)
    assert load is not None
    assert "batch   = 1..127" in load[0]
    (tmp_path / "demo.moe").write_text(LAYER + load[0])
    assert check_file(tmp_path / "demo.moe") == []


def test_a_trace_without_calls(tmp_path: Path) -> None:
    done = run(recorded(tmp_path / "a.trace"))
    assert done.exit_code == 0
    assert "0 with 0 tokens in 0 samples" in done.output
    assert "load" not in done.output


def test_what_is_no_trace(tmp_path: Path) -> None:
    (tmp_path / "a.trace").write_text("{}\n")
    done = run(tmp_path / "a.trace")
    assert done.exit_code == 1
    assert f"error: {tmp_path / 'a.trace'}: line 1 is no header of a trace" in done.output
    done = run(tmp_path / "missing.trace")
    assert done.exit_code == 1
    assert "missing.trace: No such file" in done.output


@given(st.floats(0, 3), st.integers(4, 40), st.integers(1, 3))
def test_the_exponent_is_found_again(exponent: float, experts: int, slots: int) -> None:
    counts = [round(share * 1e12) for share in Zipf(exponent).shares(experts, slots)]
    if counts[slots] * slots < 1e12 * 0.999:  # more than one exponent may have all that counts at the cap
        assert fitted(counts[::-1], slots) == pytest.approx(exponent, abs=0.01)
