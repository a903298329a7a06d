"""With keep_weights the ordinary tensors stay, and every change that torch can know of reaches the next call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import moec
from moec.errors import GradientError, ShapeError, WeightsError
from moec.runtime.module import Layer
from tests.runtime import double

X = torch.tensor([[1.0, -2.0, 3.0, 0.5], [0.0, 1.0, -1.0, 2.0]])


def right(layer: Layer) -> bool:
    state = {name: tensor.detach().clone() for name, tensor in (*layer.named_parameters(), *layer.named_buffers())}
    return torch.equal(layer(X, 3), double.expected(X, 3, state))


@torch.no_grad()
def in_place(layer: Layer) -> None:
    layer.shift.add_(1)


@torch.no_grad()
def through_a_view(layer: Layer) -> None:
    layer.routed.scale.weight[1][1:3].zero_()


def by_data(layer: Layer) -> None:
    layer.shift.data = torch.full((4,), 9.0)


def by_a_new_parameter(layer: Layer) -> None:
    layer.shift = torch.nn.Parameter(torch.full((4,), 7.0), requires_grad=False)


def by_a_buffer(layer: Layer) -> None:
    layer.router.table.copy_(torch.tensor([0, 1, 2, 4, 3]))


def by_load(layer: Layer) -> None:
    layer.load_state_dict(double.weights() | {"shift": torch.ones(4)})


def by_load_with_assign(layer: Layer) -> None:
    layer.load_state_dict(double.weights() | {"shift": torch.ones(4)}, assign=True)


def by_reset(layer: Layer) -> None:
    layer.reset_parameters(3)


def by_an_optimizer(layer: Layer) -> None:
    layer.shift.requires_grad = True
    layer.shift.grad = torch.ones(4)
    torch.optim.SGD([layer.shift], lr=0.5).step()
    layer.shift.requires_grad = False


CHANGES = [
    in_place,
    through_a_view,
    by_data,
    by_a_new_parameter,
    by_a_buffer,
    by_load,
    by_load_with_assign,
    by_reset,
    by_an_optimizer,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(kept: Layer, change: Callable[[Layer], None]) -> None:
    assert right(kept)
    before = kept(X, 3)
    change(kept)
    assert right(kept)
    assert not torch.equal(kept(X, 3), before), "the change makes a difference"


def test_nothing_is_packed_again_without_a_change(kept: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(X, 3)
    monkeypatch.setattr(kept._store, "pack", lambda *_: pytest.fail("packed again"))
    assert right(kept)


def test_only_what_changed_is_packed_again(kept: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(X, 3)
    packed: list[int] = []
    pack = kept._store.pack
    monkeypatch.setattr(kept._store, "pack", lambda i, t: (packed.append(i), pack(i, t)))
    in_place(kept)
    assert right(kept)
    assert packed == [1]


def test_memory_that_comes_back_is_not_mistaken(kept: Layer) -> None:
    large = 2**22  # whose memory the allocator likes to give out again at the same address
    for fill in (1.0, 2.0, 3.0, 4.0):
        kept.shift.data = torch.zeros(large)[:4]
        assert right(kept)
        kept.shift.data = torch.zeros(4)
        kept.shift.data = torch.full((large,), fill)[:4]  # of the same version as what was packed
        assert right(kept)
        kept.shift.data = torch.zeros(4)


def test_changes_behind_torch_need_repack(kept: Layer) -> None:
    assert right(kept)
    kept.shift.detach().numpy()[:] = 5.0
    kept.repack()
    assert right(kept)


def test_inference_tensors(path: Path) -> None:
    with torch.inference_mode():
        layer = moec.load(path, keep_weights=True)
        layer.load_state_dict({k: v.clone() for k, v in double.weights().items()}, assign=True)
        assert right(layer)
        layer.shift.data = torch.full((4,), 3.0)
        assert right(layer)


def test_state_dict_shares_memory_as_usual(kept: Layer) -> None:
    assert kept.state_dict()["shift"].data_ptr() == kept.shift.data_ptr()
    assert not any(tensor.is_meta for tensor in kept.parameters())


def test_loading_copies_and_assigning_does_not(path: Path) -> None:
    state = double.weights()
    layer = moec.load(path, keep_weights=True)
    layer.load_state_dict(state)
    assert layer.shift.data_ptr() != state["shift"].data_ptr()
    layer.load_state_dict(state, assign=True)
    assert layer.shift.data_ptr() == state["shift"].data_ptr()


def test_missing_weights(path: Path) -> None:
    layer = moec.load(path, keep_weights=True)
    layer.load_state_dict({"shift": torch.zeros(4)}, strict=False)
    with pytest.raises(WeightsError, match=r"no values yet for routed\.scale\.weight, router\.table\."):
        layer(X, 1)
    with pytest.raises(RuntimeError, match="size mismatch"):
        layer.load_state_dict(double.weights() | {"routed.scale.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"no values yet for routed\.scale\.weight\."):
        layer(X, 1)
    layer.pack()
    layer.load_state_dict(double.weights())
    assert layer.shift.is_meta
    assert torch.equal(layer(X, 3), double.expected(X, 3))


def test_what_data_was_swapped_for_is_checked(kept: Layer) -> None:
    kept.shift.data = torch.zeros(3)
    with pytest.raises(ShapeError, match=r"weight 'shift' must have shape \[4\], not \[3\]"):
        kept(X, 1)


def test_no_gradients(kept: Layer) -> None:
    kept.shift.requires_grad = True
    with pytest.raises(GradientError, match="compiled without its backward"):
        kept(X, 1)
    with torch.no_grad():
        kept(X, 1)


def test_pack_and_unpack(kept: Layer) -> None:
    in_place(kept)
    state = {name: tensor.clone() for name, tensor in kept.state_dict().items()}
    kept.pack()
    assert kept.shift.is_meta
    assert torch.equal(kept(X, 3), double.expected(X, 3, state))
    kept.unpack()
    assert torch.equal(kept.shift, state["shift"])
    in_place(kept)
    assert right(kept)


def test_functional_call(layer: Layer, kept: Layer) -> None:
    other = double.weights() | {"shift": torch.ones(4)}
    for module in (layer, kept):
        assert torch.equal(torch.func.functional_call(module, other, (X, 3)), double.expected(X, 3, other))
        partial = {"shift": torch.ones(4)}
        assert torch.equal(torch.func.functional_call(module, partial, (X, 3)), double.expected(X, 3, other))
        assert torch.equal(module(X, 3), double.expected(X, 3))
