"""An artifact that is compiled anew from its base alone: the same bits, or what a file that says so gives."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import moec
from moec.artifact.container import Artifact, read, write
from moec.artifact.specialisation import QuantisedExperts, Specialisation
from moec.backends.objects import Objects
from moec.errors import ArtifactError, DiagnosticError
from moec.pipeline.respecialise import compiled as compiled_anew
from moec.pipeline.respecialise import respecialise
from moec.pipeline.server import serve

pytestmark = pytest.mark.long

LAYER = """edition 1
layer L(d = 48, ff = 32) {{
  router softmax_top(2)
  experts routed[6] = swiglu(d, ff) : bf16
  shared common[1] = swiglu(d, ff) : bf16
  tokens capacity({factor})
  {more}
}}
"""
COLD = QuantisedExperts("routed", (1, 4, 5), "int8", 16, "f32")


def compiled(folder: Path, factor: float = 1.0, more: str = "", training: bool = False) -> Path:
    path = folder / f"layer_{factor}_{len(more)}.moe"
    path.write_text(LAYER.format(factor=factor, more=more))
    return moec.compile(path, training=training)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("base"), training=True)


@pytest.fixture(scope="module")
def best(base: Path) -> str:
    return moec.load(base).variant


def results(path: Path, tokens: int = 50) -> torch.Tensor:
    layer = moec.load(path)
    layer.reset_parameters(0)
    return layer(torch.randn(tokens, 48, generator=torch.Generator().manual_seed(tokens)).bfloat16())


def test_an_artifact_that_follows_its_load_brings_its_code_along(best: str, tmp_path: Path) -> None:
    path = tmp_path / "layer.moe"
    quantised = "approx quantize coldest(routed, 3) as int8(group = 16)"
    layout = f"layout Serve for L {{ specialise tokens(1..16, 17..64)\n {quantised} }}\n"
    path.write_text(LAYER.format(factor=1.0, more="") + layout)
    base, ahead = read(moec.compile(path)), read(moec.compile(path, tmp_path / "ahead.so", variants=True))
    assert set(base.objects) < set(ahead.objects)
    assert not any(one.manifest.specialisation.quantised for one in ahead.prebuilt() if one.manifest.specialisation)
    cold = Specialisation("cold", quantised=(replace(COLD, scale="bf16"),))
    for made, artifact, new in ((Specialisation("few", (17, 64)), base, 2), (cold, ahead, 1)):
        alone, beside = Objects(), Objects()
        wanted = compiled_anew(replace(artifact, objects={}), made, best, alone)
        found = compiled_anew(artifact, made, best, beside)
        assert found[0] == wanted[0]
        assert len(beside.kept) <= new < 4 <= len(alone.kept)
        assert not set(beside.kept) & set(artifact.objects)


def test_a_range_of_tokens_keeps_every_bit(base: Path, best: str, tmp_path: Path) -> None:
    few = Specialisation("few", (1, 16))
    path = respecialise(base, few, tmp_path / "few.so", best)
    for tokens in (0, 1, 16, 17, 300):
        assert torch.equal(results(path, tokens), results(base, tokens))
    made, of = read(path), read(base)
    assert (made.manifest.specialisation, made.manifest.base) == (few, of.sha256)
    assert [v.name for v in made.manifest.variants] == [best]
    alike = [v for v in of.manifest.variants if v.name == best]
    assert made.manifest.variants[0].layout == alike[0].layout
    assert made.manifest.training is None
    assert made.manifest.statistics == of.manifest.statistics
    assert "_backward" not in made.texts["ir/kernels.mlir"]


def test_a_capacity_is_that_of_a_file(base: Path, best: str, tmp_path: Path) -> None:
    path = respecialise(base, Specialisation("narrow", None, 0.5), tmp_path / "narrow.so", best)
    assert torch.equal(results(path), results(compiled(tmp_path, 0.5)))
    assert not torch.equal(results(path), results(base))
    assert "factor = 5.000000e-01" in read(path).texts["ir/graph.mlir"]


def test_quantised_experts_are_those_of_a_file(base: Path, best: str, tmp_path: Path) -> None:
    path = respecialise(base, Specialisation("cold", None, None, (COLD,)), tmp_path / "cold.so", best)
    statement = "quantize experts(routed, 1, 4..5) as int8(group = 16, scale = f32)"
    assert torch.equal(results(path), results(compiled(tmp_path, more=statement)))
    stored = read(path).manifest.quantised
    assert stored is not None
    assert stored.stored[0].experts == (1, 4, 5)
    numbers = [n for region in read(path).manifest.variants[0].regions for n in region.experts if n >= 0]
    assert sorted(numbers) == sorted(2 * list(range(6)))


@pytest.mark.every_variant
def test_all_variants(tmp_path: Path) -> None:
    file = tmp_path / "layer.moe"
    file.write_text(
        "edition 1\nlayer L(d = 16, ff = 16) {\n  router switch()\n  experts r[2] = mlp_relu(d, ff) : f32\n}\n"
    )
    base = moec.compile(file)
    path = respecialise(base, Specialisation("all"), tmp_path / "all.so")
    found, wanted = ([v.layout for v in read(file).manifest.variants] for file in (path, base))
    assert found == wanted
    assert len(found) > 1


def test_code_that_is_known_is_not_made_again(base: Path, best: str, tmp_path: Path) -> None:
    known = Counting()
    few, cold, others = (
        Specialisation("few", (1, 16)),
        Specialisation("cold", quantised=(COLD,)),
        Specialisation("others", quantised=(replace(COLD, numbers=(0, 2, 3)),)),
    )
    made = [
        known.counted(respecialise, base, one, tmp_path / f"{number}.so", best, known)
        for number, one in enumerate((few, few, cold, others))
    ]
    assert made[0] > 3
    assert made[1] == 0
    assert 0 < made[2] < known.made, "some kernels are those of before"
    assert made[3] == 1, "only how weights are packed"
    alone = {
        number: respecialise(base, one, tmp_path / f"alone_{number}.so", best)
        for number, one in ((2, cold), (3, others))
    }
    for tokens in (1, 300):
        assert torch.equal(results(tmp_path / "1.so", tokens), results(base, tokens))
        for number, path in alone.items():
            assert torch.equal(results(tmp_path / f"{number}.so", tokens), results(path, tokens))


class Counting(Objects):
    """Counts the object files that are made."""

    made = 0

    def put(self, name: str, data: bytes) -> None:
        self.made += 1
        super().put(name, data)

    def counted(self, work: Callable[..., object], *arguments: object) -> int:
        before = self.made
        work(*arguments)
        return self.made - before


def test_what_cannot_be_is_refused(base: Path, best: str, tmp_path: Path) -> None:
    output = tmp_path / "made.so"
    with pytest.raises(ArtifactError, match="has no variant 'sse9'"):
        respecialise(base, Specialisation("few", (1, 16)), output, "sse9")
    with pytest.raises(DiagnosticError, match=r"has experts 0\.\.5"):
        respecialise(base, Specialisation("cold", quantised=(replace(COLD, numbers=(6,)),)), output, best)
    few = respecialise(base, Specialisation("few", (1, 16)), tmp_path / "few.so", best)
    with pytest.raises(ArtifactError, match="specialised already"):
        respecialise(few, Specialisation("fewer", (1, 4)), output, best)
    assert not output.exists()


def test_a_process_answers_line_by_line(base: Path, best: str, tmp_path: Path) -> None:
    output = tmp_path / "made.so"
    job = {"id": 7, "artifact": str(base), "variant": best, "output": str(output), "objects": None}
    wide = Specialisation("wide", None, 2.0)
    lines = [
        json.dumps(job | {"specialisation": wide.to_data(), "objects": str(tmp_path / "objects")}),
        json.dumps(job | {"specialisation": wide.to_data(), "artifact": str(tmp_path / "none.so")}),
        json.dumps(job | {"specialisation": {}}),
        "nonsense",
        "",
    ]
    answers = io.StringIO()
    serve(io.StringIO("\n".join(lines)), answers)
    ready, made, *wrong = map(json.loads, answers.getvalue().splitlines())
    assert ready["ready"] is True
    assert made["id"] == 7
    assert made["ok"] is True
    assert made["seconds"] > 0
    assert read(output).manifest.specialisation == wide
    assert len(list((tmp_path / "objects").iterdir())) > 3
    assert [answer["ok"] for answer in wrong] == [False, False, False]
    assert "No such file" in wrong[0]["error"]
    assert "specialisation.name is missing" in wrong[1]["error"]


def test_ir_that_is_none_is_refused(base: Path, tmp_path: Path) -> None:
    artifact: Artifact = read(base)
    path = tmp_path / "broken.so"
    write(path, artifact.library, artifact.manifest, {**artifact.texts, "ir/kernels.mlir": "nonsense"})
    with pytest.raises(DiagnosticError, match="E0605"):
        respecialise(path, Specialisation("few", (1, 16)), tmp_path / "made.so")
    write(path, artifact.library, artifact.manifest, {})
    with pytest.raises(ArtifactError, match=r"holds no ir/graph\.mlir"):
        respecialise(path, Specialisation("few", (1, 16)), tmp_path / "made.so")
