"""`moec inspect` shows the manifest and what this machine makes of it, and executes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moec.artifact.container import GRAPH_IR, KERNEL_IR, write
from moec.artifact.policy import Policy
from moec.artifact.specialisation import QuantisedExperts, Specialisation
from moec.artifact.traffic import Observed
from moec.cli import inspect
from moec.cli.app import app
from tests.artifact.samples import library, manifest, quantised, training
from tests.artifact.test_parallel import full, plain
from tests.artifact.test_policy import policy


@pytest.fixture
def artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(inspect, "host_machine", lambda: "x86_64")
    monkeypatch.setattr(inspect, "host_features", lambda: frozenset({"fpu"}))
    path = tmp_path / "sample.so"
    write(path, library(), manifest(), {GRAPH_IR: "module { graph }", KERNEL_IR: "module { kernels }"})
    return path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["inspect", *arguments], env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    return result.output


def test_tables(artifact: Path) -> None:
    text = run(str(artifact))
    for expected in ("Sample", "sample.moe", "routed.up.weight", "[8, 16, 32]", "[T, 32]", "8.0 KiB", "ff=16"):
        assert expected in text
    assert "lacks avx512f" in text
    assert "uses this one" in text


def test_training(artifact: Path) -> None:
    assert "inference and training" not in run(str(artifact))
    write(artifact, library(), replace(manifest(), training=training()), {})
    text = run(str(artifact))
    for expected in ("inference and training", "x, router.logits.weight, routed.up.weight", "64 B a token"):
        assert expected in text
    assert "balance (0.01, over all processes)" in text


def test_quantised(artifact: Path) -> None:
    assert "Quantised" not in run(str(artifact))
    write(artifact, library(), quantised(), {})
    text = run(str(artifact))
    for expected in ("an approximation; rows are rounded to int8", "1..3, 7", "bf16, one for 8 inputs", "the caller"):
        assert expected in text


def test_policy(artifact: Path) -> None:
    assert "Policy" not in run(str(artifact))
    write(artifact, library(), replace(manifest(), policy=policy()), {})
    text = " ".join(run(str(artifact)).replace("│", " ").split())
    for expected in (
        "Policy: layout Serve",
        "Chat: 1 to 4,096 tokens a call, choices by Zipf's law, exponent 1.2",
        "when imbalance > 1.3 and tokens >= 64 holds for 200 calls (once it does, within 10% is enough)",
        "expected to be 1.05 times as fast and to pay",
        "when memory > 2 GiB holds for 30 s",
        "at most 4 at a time beside this one",
        "kernels of their own for calls of 1 to 16, 17 to 256, 257 to 4,096 tokens (the same bits)",
        "a capacity between 1 and 2 (an approximation)",
        "the 4 coldest of `routed` as int4, one bf16 scale for 32 inputs (an approximation)",
        "the 2 coldest of `routed` as ternary, one f32 scale a channel (an approximation)",
        "at most 2.0 GiB of `routed`, the rest on disk",
    ):
        assert " ".join(expected.split()) in text
    write(artifact, library(), replace(manifest(), policy=policy(Observed((1, 3), ()))), {})
    text = " ".join(run(str(artifact)).replace("│", " ").split())
    assert "choices as in a trace of 4: the most chosen of 2 experts has 75.0%" in text
    write(artifact, library(), replace(manifest(), policy=Policy("Empty")), {})
    assert "the layer stays as it is" in run(str(artifact))


def test_mesh(artifact: Path) -> None:
    assert "Mesh" not in run(str(artifact))
    write(artifact, library(), replace(manifest(), parallel=full()), {})
    text = " ".join(run(str(artifact)).replace("│", " ").split())
    for expected in (
        "Mesh Pod: layout Serve",
        "devices 4: 2 node (125 MB/s, 50 µs) × 2 gpu (10 GB/s)",
        "each device 8.0 GiB of memory, 100 GFLOP/s",
        "tokens cut over node × gpu",
        "`routed` 8 experts over node, 6 slots",
        "position 0 0..3",
        "position 1 3..7",
        "pinned 0..1 to node 0",
        "replicated the 1 hottest, 3: 2 copies",
        "`routed` every expert is cut over gpu (an approximation)",
        "`other` whole on every device",
        "overlap dispatch and combine with compute and with shared experts, in 2 chunks",
        "dispatch rows travel as bf16 (an approximation)",
        "combine one row for each token and node travels (an approximation)",
        "required memory <= 2.0 GiB",
        "required exchange < 40%",
        "bits an approximation of those of one process",
    ):
        assert expected in text
    write(artifact, library(), replace(manifest(), parallel=replace(plain(), tokens=())), {})
    text = " ".join(run(str(artifact)).replace("│", " ").split())
    assert "tokens the same on every device" in text
    assert "bits those of one process" in text


def test_json(artifact: Path) -> None:
    data = json.loads(run(str(artifact), "--json"))
    assert data["manifest"] == json.loads(manifest().to_json())
    assert data["this_cpu"] == {"machine": "x86_64", "uses": "generic", "lacks": {"avx512": ["avx512f"], "generic": []}}
    assert data["memory"]["weight_bytes"] == 8 * 32 * 4 + 8 * 16 * 32 * 2 + 8 * 4
    assert json.loads(run(str(artifact), "--json", "--ir"))["texts"][GRAPH_IR] == "module { graph }"


def test_what_it_is_specialised_to(artifact: Path) -> None:
    assert "chosen (of routed, where asked for)" in run(str(artifact))
    cold = QuantisedExperts("routed", (1, 2, 3, 7), "int4", 32, "bf16")
    made = Specialisation("cold", (1, 16), 1.5, (cold,))
    write(artifact, library(), replace(manifest(), specialisation=made, base="ab" * 32), {})
    text = run(str(artifact))
    assert "cold: 1 to 16 tokens, capacity 1.5, routed 1..3, 7 as int4 (an approximation)" in text
    assert "sha256 abababababab…" in text


def test_ir(artifact: Path) -> None:
    assert (
        run(str(artifact), "--ir") == "// ir/graph.mlir\nmodule { graph }\n\n// ir/kernels.mlir\nmodule { kernels }\n\n"
    )


def test_another_machine(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "host_machine", lambda: "riscv64")
    assert "lacks x86_64" in run(str(artifact))
    assert json.loads(run(str(artifact), "--json"))["this_cpu"]["uses"] is None


def test_a_file_that_is_no_artifact(tmp_path: Path) -> None:
    path = tmp_path / "file.so"
    path.write_text("text")
    result = CliRunner().invoke(app, ["inspect", str(path)])
    assert result.exit_code == 1
    assert "is not a shared library" in result.output
