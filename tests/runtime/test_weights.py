"""Weights in the default mode: packed once, shown as placeholders, in and out by state dicts, exactly."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import moec
from moec.artifact.container import write
from moec.artifact.manifest import Weight
from moec.errors import DeviceError, DtypeError, GradientError, MoecError, ShapeError, WeightsError
from moec.runtime.module import Layer
from tests.runtime import double

X = torch.tensor([[1.0, -2.0, 3.0, 0.5], [0.0, 1.0, -1.0, 2.0]])


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k].view(torch.int32), b[k].view(torch.int32)) for k in a)


def right(layer: Layer, state: dict[str, torch.Tensor] | None = None) -> bool:
    return torch.equal(layer(X, 3), double.expected(X, 3, state))


def test_names_shapes_and_dtypes(empty: Layer) -> None:
    parameters, buffers = dict(empty.named_parameters()), dict(empty.named_buffers())
    assert set(parameters) == {"routed.scale.weight", "shift"}
    assert set(buffers) == {"router.table"}
    assert parameters["routed.scale.weight"] is empty.routed.scale.weight
    for name, value in double.weights().items():
        tensor = parameters.get(name, buffers.get(name))
        assert tensor is not None
        assert (tensor.shape, tensor.dtype) == (value.shape, value.dtype)
        assert tensor.is_meta
        assert not tensor.requires_grad
    assert sum(p.numel() for p in empty.parameters()) == 24


def test_state_dict_is_exact(layer: Layer) -> None:
    assert right(layer)
    assert same(dict(layer.state_dict()), double.weights())


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=29, max_size=29))
def test_any_bits_come_back(path: Path, words: list[int]) -> None:
    bits = torch.tensor(words, dtype=torch.int64).to(torch.int32)
    state = {
        "routed.scale.weight": bits[:20].view(torch.float32).reshape(5, 4),
        "shift": bits[20:24].view(torch.float32),
        "router.table": bits[24:],
    }
    layer = moec.load(path)
    layer.load_state_dict(state)
    assert same(dict(layer.state_dict()), state)


@pytest.mark.parametrize("assign", [False, True])
def test_load_state_dict(empty: Layer, assign: bool) -> None:
    empty.load_state_dict(double.weights(), assign=assign)
    assert right(empty)
    assert empty.routed.scale.weight.is_meta, "no ordinary tensor stays"


def test_weights_of_any_strides_and_a_part_of_them(layer: Layer) -> None:
    scale = torch.randn(4, 5).t()
    assert layer.load_state_dict({"routed.scale.weight": scale}, strict=False).missing_keys == ["shift", "router.table"]
    assert right(layer, double.weights() | {"routed.scale.weight": scale})


def test_loading_converts_as_torch_does(empty: Layer) -> None:
    state = double.weights()
    empty.load_state_dict(state | {"shift": state["shift"].double().requires_grad_()})
    assert right(empty)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("shift"), 'Missing key.*"shift"'),
        (lambda s: s.update(extra=torch.zeros(1)), 'Unexpected key.*"extra"'),
        (lambda s: s.update({"routed.up.weight": torch.zeros(1)}), 'Unexpected key.*"routed.up.weight"'),
        (lambda s: s.update(shift=torch.zeros(5)), r"size mismatch for shift.*\[5\].*\[4\]"),
        (lambda s: s.update(shift=torch.zeros(4, device="meta")), "meta"),
        (lambda s: s.update(shift=[0.0] * 4), "expected torch.Tensor"),
    ],
)
def test_strict_errors_are_torchs_own(empty: Layer, change: Callable[[dict[str, Any]], object], says: str) -> None:
    state = double.weights()
    change(state)
    with pytest.raises(RuntimeError, match=f"(?s)Error.s. in loading state_dict for Layer.*{says}"):
        empty.load_state_dict(state)


def test_assign_does_not_convert(empty: Layer) -> None:
    with pytest.raises(RuntimeError, match=r"must be torch\.float32, not torch.float64"):
        empty.load_state_dict(double.weights() | {"shift": torch.zeros(4).double()}, assign=True)


def test_inside_another_model(layer: Layer, path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), layer)
    state = model.state_dict()
    assert {"0.weight", "1.shift", "1.routed.scale.weight", "1.router.table"} <= set(state)
    other = torch.nn.Sequential(torch.nn.Linear(4, 4), moec.load(path))
    other.load_state_dict(state)
    assert right(other[1])
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    third = torch.nn.Sequential(torch.nn.Linear(4, 4), moec.load(path))
    third.load_state_dict(torch.load(stream, weights_only=True))
    assert right(third[1])
    model.requires_grad_(False).eval().train().to("cpu").float().zero_grad()


def test_a_weight_by_assignment(empty: Layer) -> None:
    state = double.weights()
    empty.routed.scale.weight = torch.nn.Parameter(state["routed.scale.weight"])
    empty.shift = state["shift"]
    empty.router.table = state["router.table"]
    assert right(empty)
    with pytest.raises(ShapeError, match=r"weight 'shift' must have shape \[4\], not \[3\]"):
        empty.shift = torch.zeros(3)
    with pytest.raises(DtypeError, match=r"must be torch\.float32, not torch.float16"):
        empty.shift = torch.zeros(4).half()
    with pytest.raises(DeviceError, match="meta device"):
        empty.shift = torch.zeros(4, device="meta")
    with pytest.raises(MoecError, match=r"must be a torch\.Tensor, not list"):
        empty.shift = [0.0]
    assert right(empty)


TOUCHES: list[Callable[[Layer], object]] = [
    lambda f: f.shift + 1,
    lambda f: f.shift.copy_(torch.zeros(4)),
    lambda f: torch.nn.init.normal_(f.routed.scale.weight),
    lambda f: f.shift.data,
    lambda f: f.shift.detach(),
    lambda f: f.router.table[0],
    lambda f: f.shift.data_ptr(),
    lambda f: f.shift.numpy(),
    lambda f: torch.stack([f.shift, f.shift]),
    lambda f: f.shift.tolist(),
    lambda f: pickle.dumps(f.shift),
    lambda f: torch.save(dict(f.named_parameters()), io.BytesIO()),
    lambda f: torch.nn.utils.parameters_to_vector(f.parameters()),
]


@pytest.mark.parametrize("touch", TOUCHES)
def test_a_placeholder_gives_no_values(layer: Layer, touch: Callable[[Layer], object]) -> None:
    with pytest.raises(WeightsError, match=r"packed for the kernels or were never given.*layer\.state_dict\(\)"):
        touch(layer)
    assert right(layer)


def test_a_placeholder_describes_itself(layer: Layer) -> None:
    assert repr(layer.shift) == "<weight shift: f32[4]>"
    assert layer.shift.size(0) == 4
    assert hash(layer.shift) == hash(layer.shift)
    assert "Double, plain, weights packed" in repr(layer)


def test_random_values(empty: Layer) -> None:
    first = dict(empty.reset_parameters(7).state_dict())
    assert same(first, dict(empty.reset_parameters(7).state_dict()))
    assert not same(first, dict(empty.reset_parameters(8).state_dict()))
    assert first["routed.scale.weight"].abs().max() < 4
    assert first["router.table"].eq(0).all()
    assert right(empty.reset_parameters(7), first)


def test_no_memory_before_weights_come(empty: Layer, layer: Layer) -> None:
    assert empty.packed_bytes == 0
    assert layer.packed_bytes == 256
    assert layer._store.buffer.data_ptr() % 64 == 0
    assert all(tensor.is_meta for tensor in empty.state_dict().values())


def test_editing_inside_unpacked(layer: Layer) -> None:
    with layer.unpacked() as same_layer, torch.no_grad():
        assert same_layer is layer
        layer.shift.add_(1)
        layer.routed.scale.weight.mul_(2)
    state = double.weights()
    state = state | {"shift": state["shift"] + 1, "routed.scale.weight": state["routed.scale.weight"] * 2}
    assert layer.shift.is_meta
    assert right(layer, state)


def test_an_error_inside_unpacked_leaves_a_packed_layer(layer: Layer) -> None:
    with pytest.raises(KeyError), layer.unpacked():
        raise KeyError
    assert layer.shift.is_meta
    assert right(layer)


def test_deepcopy(layer: Layer) -> None:
    twin = copy.deepcopy(torch.nn.Sequential(layer))[0]
    twin.shift = torch.zeros(4)
    assert right(twin, double.weights() | {"shift": torch.zeros(4)})
    assert right(layer)
    assert twin.state_dict().keys() == layer.state_dict().keys()


@pytest.mark.parametrize("save", [pickle.dumps, lambda layer: torch.save(layer, io.BytesIO())])
def test_pickle_points_to_state_dict(layer: Layer, save: Callable[[object], object]) -> None:
    for module in (layer, layer.routed, torch.nn.Sequential(layer)):
        with pytest.raises(WeightsError, match=r"cannot be pickled.*state_dict"):
            save(module)


@pytest.mark.parametrize(
    ("move", "error"),
    [
        (lambda m: m.half(), DtypeError),
        (lambda m: m.to(torch.bfloat16), DtypeError),
        (lambda m: m.double(), DtypeError),
        (lambda m: m.to("meta"), DeviceError),
        (lambda m: m.to_empty(device="meta"), DeviceError),
        (lambda m: m.share_memory(), WeightsError),
        (lambda m: m.requires_grad_(), GradientError),
    ],
)
def test_what_a_layer_cannot_become(
    layer: Layer, move: Callable[[torch.nn.Module], object], error: type[MoecError]
) -> None:
    for module in (layer, layer.routed):
        with pytest.raises(error):
            move(module)
    assert right(layer)


def test_names_that_torch_uses_itself(tmp_path: Path) -> None:
    names = ("type.weight", "forward.train", "_store.keep")
    manifest = double.manifest()
    weights = tuple(replace(w, name=name) for w, name in zip(manifest.parameters, names, strict=True))
    write(tmp_path / "names.so", double.compiled(), replace(manifest, parameters=weights), {})
    layer = moec.load(tmp_path / "names.so")
    layer.load_state_dict(dict(zip(names, double.weights().values(), strict=True)))
    assert right(layer)
    assert set(layer.state_dict()) == set(names)


def test_a_layer_without_weights_of_its_own(tmp_path: Path) -> None:
    none: tuple[Weight, ...] = ()
    write(tmp_path / "none.so", double.compiled(), replace(double.manifest(), parameters=none), {})
    layer = moec.load(tmp_path / "none.so")
    layer.load_state_dict({})
    assert dict(layer.state_dict()) == {}


def test_weights_are_not_deleted(layer: Layer) -> None:
    with pytest.raises(WeightsError, match=r"'routed\.scale\.weight' cannot be deleted"):
        del layer.routed.scale.weight
    layer.note = 1
    del layer.note
    assert layer(torch.zeros(1, 4), 0).shape == (1, 4)
