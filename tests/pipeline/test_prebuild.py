"""Variants that are compiled ahead, into the artifact."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import moec
from moec.artifact.container import read, write
from moec.artifact.manifest import Statistic
from moec.artifact.policy import Policy
from moec.artifact.traffic import Load, Uniform
from moec.errors import DiagnosticError
from moec.pipeline import Compilation
from moec.pipeline.prebuild import worth_compiling
from tests.artifact.samples import manifest

LAYER = """edition 1
load Chat {{ batch = 1..64; routing = trace("chat.trace") }}
layer L(d = 32, ff = 16) {{
  router softmax_top(2)
  experts routed[4] = swiglu(d, ff) : f32
  tokens capacity(1.0)
}}
layout Serve for L under Chat {{
  {allowed}
}}
"""
ALLOWED = """specialise tokens(1..4)
  approx capacity(0.5..2.0)
  approx quantize coldest(routed, 2) as int8()"""


def source(folder: Path, allowed: str) -> Path:
    header = {"moec_trace": 1, "layer": "L", "experts": 4, "slots": 2}
    line = {"time": 1.0, "tokens": 8, "counts": [5, 1, 8, 2]}
    (folder / "chat.trace").write_text(f"{json.dumps(header)}\n{json.dumps(line)}\n")
    path = folder / "layer.moe"
    path.write_text(LAYER.format(allowed=allowed))
    return path


def test_an_artifact_holds_what_its_layout_allows(tmp_path: Path) -> None:
    path = moec.compile(source(tmp_path, ALLOWED), variants=True)
    made = {one.manifest.specialisation: one for one in read(path).prebuilt()}
    known = {one.name: one for one in made if one is not None}
    assert [one.capacity for one in known.values() if one.capacity] == [0.5, 0.707, 1.0, 1.41, 2.0]
    assert known["tokens_1_4"].exact
    (cold,) = (one for one in known.values() if one.quantised)
    assert cold.numbers == (1, 3)

    def results(file: Path) -> torch.Tensor:
        layer = moec.load(file)
        layer.reset_parameters(0)
        return layer(torch.randn(20, 32, generator=torch.Generator().manual_seed(1)))

    for name, same in (("tokens_1_4", True), ("capacity_1_0", True), ("capacity_0_5", False)):
        one = tmp_path / f"{name}.so"
        artifact = made[known[name]]
        write(one, artifact.library, artifact.manifest, artifact.texts)
        assert torch.equal(results(one), results(path)) is same, name


def test_what_gives_nothing_is_not_compiled() -> None:
    def names(*ranges: tuple[int, int]) -> list[str]:
        policy = Policy("Serve", Load("Chat", (1, 64), Uniform()), tokens=ranges)
        layer = replace(manifest(), statistics=(Statistic("chosen", "routed", 2, (8,)),), policy=policy)
        return [one.name for one in worth_compiling(layer).variants]

    assert names((1, 8)) == ["tokens_1_8"]
    assert names((1, 8), (9, 64)) == ["tokens_1_8"]
    with pytest.raises(DiagnosticError, match="allows nothing that is known ahead") as caught:
        names((1, 9))
    assert [one.code for one in caught.value.diagnostics] == ["E0612"]


@pytest.mark.parametrize(
    ("layout", "why"),
    [(False, "no layout says which variants `L` may have"), (True, "allows nothing that is known ahead")],
)
def test_what_is_asked_for_in_vain_is_said_before_anything_is_compiled(tmp_path: Path, layout: bool, why: str) -> None:
    path = source(tmp_path, "specialise tokens(5..64)")  # for so many rows an expert, the code would be no other
    if not layout:
        path.write_text(path.read_text().partition("layout")[0].replace("load Chat", "# load Chat"))
    stages: list[str] = []
    made = Compilation(path, variants=True, observe=lambda stage, seconds: stages.append(stage))
    with pytest.raises(DiagnosticError, match=why):
        made.write(tmp_path / "l.so")
    assert "graph" in stages
    assert "machine code" not in stages
    assert not (tmp_path / "l.so").exists()
