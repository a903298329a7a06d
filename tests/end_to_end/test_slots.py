"""The bytes of one expert in a packed layer: all of them, nobody else's, and the same in every slot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import moec
from moec.errors import WeightsError
from moec.runtime.module import Layer
from moec.runtime.parallel.moving.memory import PackedSlots

S = 5
LAYERS = {
    "swiglu": "experts routed[5] = swiglu(d, ff) : bf16",
    "biases": "experts routed[5] = clamped_swiglu(d, ff) : f32",
    "shared": "shared common[2] = swiglu(d, ff) : f32\n  experts routed[5] = swiglu(d, ff) : f32",
    "coded": "experts routed[5] = swiglu(d, ff) : int8(group = 8)",
}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("slots")
    found = {}
    for name, body in LAYERS.items():
        file = folder / f"{name}.moe"
        file.write_text(f"edition 1\nlayer L(d = 24, ff = 40) {{\n  router softmax_top(2)\n  {body}\n}}\n")
        found[name] = moec.compile(file)
    return found


def slots(layer: Layer) -> PackedSlots:
    return PackedSlots(layer._store)


def packed(path: Path, state: dict[str, torch.Tensor]) -> Layer:
    layer = moec.load(path)
    layer._store.reserve()
    layer._store.buffer.zero_()  # what lies between weights is no weight
    layer.load_state_dict(state)
    return layer


@pytest.mark.parametrize("name", LAYERS)
def test_an_expert_is_in_its_pieces_and_nowhere_else(artifacts: dict[str, Path], name: str) -> None:
    """Exchanging the bytes of two slots is the same as exchanging the weights of two experts."""
    state = moec.load(artifacts[name], keep_weights=True).reset_parameters(0).state_dict()
    layer = packed(artifacts[name], state)
    order = [0, 3, 2, 1, 4]
    exchanged = {key: tensor[order] if key.startswith("routed.") else tensor for key, tensor in state.items()}
    other = packed(artifacts[name], exchanged)
    memory, wanted = slots(layer), slots(other)
    assert memory.slots == S
    for slot in range(S):
        assert all(map(torch.equal, memory.pieces(slot), wanted.pieces(order[slot])))
    assert not torch.equal(layer._store.buffer, other._store.buffer)
    kept = [[piece.clone() for piece in memory.pieces(slot)] for slot in order]
    for slot in range(S):
        for piece, given in zip(memory.pieces(slot), kept[slot], strict=True):
            piece.copy_(given)
    assert torch.equal(layer._store.buffer, other._store.buffer)


@pytest.mark.parametrize("name", ["swiglu", "biases", "shared"])
def test_ordinary_weights_become_the_same_bytes(artifacts: dict[str, Path], name: str) -> None:
    memory = slots(moec.load(artifacts[name]).reset_parameters(0))
    given = memory.ordinary(3)
    assert [len(piece) for piece in memory.room()] == [len(piece) for piece in given]
    assert all(map(torch.equal, memory.formed(given), memory.pieces(3)))


def test_weights_that_were_quantised_do_not_travel_as_ordinary_ones(artifacts: dict[str, Path]) -> None:
    memory = slots(moec.load(artifacts["coded"]).reset_parameters(0))
    with pytest.raises(WeightsError, match="quantised"):
        memory.ordinary(0)


def test_forms_tell_layers_apart(artifacts: dict[str, Path]) -> None:
    forms = {slots(moec.load(path)).form for path in artifacts.values()}
    assert len(forms) == len(artifacts)
    assert slots(moec.load(artifacts["swiglu"])).form in forms
