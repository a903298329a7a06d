"""Real variants of real layers, beside the layers that they are made of: their weights, their bits, their errors."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

import moec
from moec.artifact.container import read
from moec.artifact.specialisation import QuantisedExperts, Specialisation
from moec.pipeline.respecialise import respecialise
from moec.runtime.adapt.published import BASE, Build, Overlay, Published
from moec.runtime.adapt.recording import Recording
from moec.runtime.adapt.transfer import transferred
from moec.runtime.adapt.validation import Validation, _run, validate
from moec.runtime.module import Layer
from moec.runtime.native import bind, library

pytestmark = pytest.mark.long

LAYER = """edition 1
layer Tiny(d = 64, ff = 32, dtype = bf16) {
  router softmax_top(2) : f32
  experts routed[8] = swiglu(d, ff) : dtype
  %s
}
"""
DROPPING = LAYER % "tokens capacity(0.5, order = token, overflow = drop)"


@pytest.fixture(scope="module")
def dropless(tmp_path_factory: pytest.TempPathFactory) -> Layer:
    return _layer(LAYER % "tokens dropless", tmp_path_factory.mktemp("dropless"))


@pytest.fixture(scope="module")
def dropping(tmp_path_factory: pytest.TempPathFactory) -> Layer:
    return _layer(DROPPING, tmp_path_factory.mktemp("dropping"))


def _layer(source: str, folder: Path) -> Layer:
    (folder / "layer.moe").write_text(source)
    return moec.load(moec.compile(folder / "layer.moe")).reset_parameters(3)


def build(layer: Layer, specialisation: Specialisation, folder: Path) -> Build:
    respecialise(layer._file, specialisation, folder / "variant.so", layer.variant)
    kernel = bind(library(read(folder / "variant.so")), layer.variant)
    weights = transferred(kernel, layer._store)
    return Build(specialisation.name, 1, kernel, weights.packed, lender=weights.lender)


def tried(layer: Layer, new: Build, specialisation: Specialisation) -> Validation:
    base = Build(BASE, 0, layer._store.kernel, layer._store.buffer)
    recording = Recording()
    recording.seen([torch.randn(50, 64).bfloat16()], 0)
    return validate(base, base, new, recording, specialisation, (1, 7, 64))


def test_ranges_of_tokens_share_the_weights_and_have_the_same_bits(dropless: Layer, tmp_path: Path) -> None:
    specialisation = Specialisation("few", tokens=(1, 16))
    new = build(dropless, specialisation, tmp_path)
    assert new.packed is dropless._store.buffer
    found = tried(dropless, new, specialisation)
    assert (found.identical, found.error, found.wrong) == (True, 0.0, None)


def test_another_capacity_shares_the_weights_and_keeps_what_is_not_dropped(dropping: Layer, tmp_path: Path) -> None:
    specialisation = Specialisation("wide", capacity=4.0)
    new = build(dropping, specialisation, tmp_path)
    assert new.packed is dropping._store.buffer
    found = tried(dropping, new, specialisation)
    assert not found.identical
    assert found.error > 0
    assert found.wrong is None


@pytest.mark.parametrize("format", [pytest.param("int8", marks=pytest.mark.slow), "int4"])
def test_experts_that_stay_are_read_where_they_lie(tmp_path: Path, format: str) -> None:
    """Taken over or packed anew: the same bits, whatever else a layer has."""
    layer = _layer(
        """edition 1
        layer Mixed(d = 64, ff = 48) {
          router softmax_top(2)
          experts routed[8] = mlp_relu(d, ff, bias = true) : bf16
          shared common[1] = swiglu(d, ff) : bf16
        }
        """,
        tmp_path,
    )
    quantised = QuantisedExperts("routed", (0, 3, 4), format, 16, "bf16")
    new = build(layer, Specialisation("cold", quantised=(quantised,)), tmp_path)
    assert new.lender is layer._store.buffer
    matrices = 2 * 64 * 48 * 2
    assert new.packed.numel() - new.nbytes >= 5 * matrices
    own = layer._store.buffer.new_zeros(new.packed.numel() + 64)
    own = own[-own.data_ptr() % 64 :][: new.packed.numel()]
    for index, weight in enumerate(layer.state_dict().values()):
        new.kernel.call("pack", index, own, weight)
    for tokens in (1, 5, 100):
        x = torch.randn(tokens, 64).bfloat16()
        taken, packed = (_run(Build("", 1, new.kernel, buffer), [x])[0][0] for buffer in (new.packed, own))
        assert torch.equal(taken, packed)
    for index, weight in enumerate(layer.state_dict().values()):
        again = [torch.empty_like(weight) for _ in range(2)]
        for tensor, buffer in zip(again, (new.packed, own), strict=True):
            new.kernel.call("unpack", index, buffer, tensor)
        assert torch.equal(*again)


@pytest.mark.parametrize("format", ["int8", "int4"])
def test_quantised_experts_have_a_copy_of_the_weights(dropless: Layer, tmp_path: Path, format: str) -> None:
    quantised = QuantisedExperts("routed", (1, 4, 6), format, 32, "bf16")
    specialisation = Specialisation("cold", quantised=(quantised,))
    new = build(dropless, specialisation, tmp_path)
    assert new.packed is not dropless._store.buffer
    assert new.packed.numel() < dropless._store.buffer.numel()
    found = tried(dropless, new, specialisation)
    assert not found.identical
    assert 0 < found.error < {"int8": 0.03, "int4": 0.2}[format]
    assert found.wrong is None


def test_what_is_published_follows_the_range(dropless: Layer, tmp_path: Path) -> None:
    """Quantised experts for some calls only: one sees which build ran."""
    quantised = QuantisedExperts("routed", tuple(range(8)), "int4", 32, "bf16")
    new = build(dropless, Specialisation("cold", quantised=(quantised,)), tmp_path)
    x = torch.randn(9, 64).bfloat16()
    plain = {tokens: dropless(x[:tokens]) for tokens in (4, 9)}
    base = Build(BASE, 0, dropless._store.kernel, dropless._store.buffer)
    assert dropless._store.publish(Published(base, [Overlay(1, 4, new)]), dropless._store.generation)
    try:
        assert not torch.equal(dropless(x[:4]), plain[4])
        assert torch.equal(dropless(x), plain[9])
        state = dropless.state_dict()
    finally:
        dropless._store.publish(None, dropless._store.generation)
    assert torch.equal(dropless(x[:4]), plain[4])
    assert state.keys() == dropless.state_dict().keys()


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("prompt_compiler")
def test_from_a_layout_to_a_variant_by_the_real_compiler(tmp_path: Path) -> None:
    """All of it: statistics, guard, proposal, compiler, trial; whether it stays is the machine's to say."""
    source = DROPPING + (
        "layout Refit for Tiny {\n  approx capacity(0.5..4.0)\n"
        "  recompile when overflow > 0.02 for 20 calls, gain 1.0, max 2 variants\n}\n"
    )
    (tmp_path / "layer.moe").write_text(source)
    layer = moec.load(moec.compile(tmp_path / "layer.moe")).reset_parameters(3)
    alike = torch.randn(1, 64)
    with layer.adapt(cache=tmp_path / "cache", journal=tmp_path / "journal.jsonl") as adaptation:
        end = time.monotonic() + 240
        ended = {"keep", "reject"}
        while time.monotonic() < end:
            layer((torch.randn(64, 64) / 4 + alike).bfloat16())
            time.sleep(0.001)  # leaves the processor to the compiler
            events = [record["event"] for record in adaptation.decisions]
            assert all("slower" in str(d["why"]) for d in adaptation.decisions if d["event"] == "failed")
            if "validated" in events and adaptation.decisions[-1].get("what") in ended:
                break
        else:
            pytest.fail(f"nothing came of it: {adaptation.decisions}")
    compile_ = next(record for record in adaptation.decisions if record.get("what") == "compile")
    assert compile_["candidate"].startswith("capacity_")
    validated = next(record for record in adaptation.decisions if record["event"] == "validated")
    assert validated["identical"] is False
    assert len(list((tmp_path / "cache").glob("*.so"))) == 1
    x = torch.randn(1, 64).bfloat16()
    plain = moec.load(layer._file)
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), plain(x)), "one token drops nothing with any capacity"
