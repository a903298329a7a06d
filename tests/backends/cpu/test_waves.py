"""Layers whose hidden rows are wide run in waves: less memory, the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import moec
from moec.backends.cpu import isa, waves
from moec.runtime.module import Layer
from tests.backends.cpu import quantised
from tests.backends.cpu.artifact import Artifact
from tests.backends.cpu.quantised import Format

MIXTRAL = Path(__file__).parents[3] / "examples" / "mixtral_8x7b.moe"
SIZES = {"d": 96, "ff": 384, "dtype": "bf16"}
PERMUTED = 2 * 96 * 2  # bytes of a token's rows: two slots of 96 bf16
BUFFERS = 1 << 20  # what two threads have of their own, more than enough at these sizes


@pytest.fixture(scope="module")
def in_waves(tmp_path_factory: pytest.TempPathFactory) -> Layer:
    return moec.load(moec.compile(MIXTRAL, tmp_path_factory.mktemp("waves") / "layer.so", defines=SIZES))


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> Layer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waves, "WORKING_MEMORY", 1000.0)
        path = moec.compile(MIXTRAL, tmp_path_factory.mktemp("at-once") / "layer.so", defines=SIZES)
    return moec.load(path)


@pytest.mark.parametrize("tokens", [0, 1, 15, 16, 17, 33, 200, 1000])
@pytest.mark.parametrize("routing", ["random", "one expert gets all", "half are empty"])
def test_waves_change_no_bit(in_waves: Layer, at_once: Layer, tokens: int, routing: str) -> None:
    state = in_waves.reset_parameters(0).state_dict()
    if routing == "one expert gets all":
        state["router.logits.weight"].zero_()  # ties: the first two experts get everything
    elif routing == "half are empty":
        state["router.logits.weight"][::2] = 0.0
        state["router.logits.weight"][::2, 0] = -100.0
    in_waves.load_state_dict(state)
    at_once.load_state_dict(state)
    x = torch.randn(tokens, 96, generator=torch.Generator().manual_seed(tokens)).bfloat16()
    x[:, 0] = x[:, 0].abs() + 0.1
    assert torch.equal(in_waves(x), at_once(x))


@pytest.mark.parametrize("tokens", [2048, 16384])
def test_working_memory_is_bounded_by_twice_the_permuted_rows(in_waves: Layer, at_once: Layer, tokens: int) -> None:
    def bytes_of(layer: Layer) -> int:
        return int(layer._store.kernel.workspace_bytes(tokens, 2)) - BUFFERS

    assert bytes_of(in_waves) <= 2 * PERMUTED * tokens
    assert bytes_of(at_once) > 2 * PERMUTED * tokens


def test_waves_change_no_bit_of_quantised_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    size = (96, 384, 8, 2)
    text = quantised.experts(size, Format("int8"), "bf16", integers=True)
    random = torch.Generator().manual_seed(0)
    parameters = {
        name: torch.randn(shape, generator=random).bfloat16()
        for name, shape in {"gate": (8, 384, 96), "up": (8, 384, 96), "down": (8, 96, 384)}.items()
    }
    x = torch.randn(300, 96, generator=random).bfloat16()
    index = torch.rand(300, 8, generator=random).topk(2, -1).indices.int()
    inputs = {"x": x, "index": index, "weight": torch.rand(300, 2, generator=random)}
    artifact = Artifact(text, isa.host_variants()[-1:])
    monkeypatch.setattr(waves, "WORKING_MEMORY", 1000.0)
    at_once = Artifact(text, isa.host_variants()[-1:])
    small, large = (a.library.workspace_bytes(0, 16384, 2) - BUFFERS for a in (artifact, at_once))
    assert 3 * small < large
    for threads in (1, 3):
        found, wanted = (a.run(inputs, parameters, threads=threads)["y"] for a in (artifact, at_once))
        assert torch.equal(found, wanted)
