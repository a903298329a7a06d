"""Forward and backward of a layer whose weights are read as the caller holds them, against the oracle in float64."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
import torch

from moec import oracle
from moec.dialect import context
from moec.pipeline.ir_text import parse
from tests.backends.cpu.artifact import exact
from tests.backends.cpu.native import runnable
from tests.backends.cpu.training import Sizes, Trained

pytestmark = pytest.mark.long

VARIANTS = runnable()
TOLERANCE = {"f32": 2e-4, "bf16": 0.02, "f16": 0.003}

# nothing a multiple of anything; several units of both forms of weights and rows of several chunks
SMALL, LONG = (33, 7, 5, 3), (620, 130, 3, 2)
TINY = (1, 1, 1, 1)
CASES = [
    *((SMALL, "f32"), (SMALL, "bf16"), (LONG, "bf16"), (TINY, "bf16"), (SMALL, "f16")),
    pytest.param(LONG, "f32", marks=pytest.mark.slow),
]


@cache
def trained(size: tuple[int, int, int, int], dtype: str) -> Trained:
    """In all variants; what has neither a whole vector nor a unit anywhere only in the widest and in the narrowest."""
    return Trained(Sizes(*size, dtype), VARIANTS if size != TINY else (VARIANTS[0], VARIANTS[-1]))


def _oracle(layer: Trained, given: Mapping[str, torch.Tensor], entry: str) -> dict[str, np.ndarray]:
    module = parse(layer.sizes.text(), "sample", context())
    return oracle.run(module, {name: exact(tensor) for name, tensor in given.items()}, f"Small_{entry}")


def _close(layer: Trained, found: Mapping[str, torch.Tensor], wanted: Mapping[str, np.ndarray], where: object) -> None:
    for name, tensor in found.items():
        want = wanted[name]
        scale = max(1e-3, np.abs(want).max(initial=0))
        off = np.abs(exact(tensor) - want).max(initial=0) / scale
        assert off < TOLERANCE[layer.sizes.dtype], (name, off, where)


@pytest.mark.parametrize(("size", "dtype"), CASES, ids=str)
def test_forward_and_backward(size: tuple[int, int, int, int], dtype: str) -> None:
    layer = trained(size, dtype)
    for tokens in (0, 1, 13, 300):
        given = layer.sizes.given(tokens, seed=tokens)
        wanted = None
        for number, variant in enumerate(layer.variants):
            forward = layer.call("forward", given, tokens, variant=number, threads=2)
            if wanted is None:  # choices may differ where scores all but tie, so that all go on from these
                saved = forward
                wanted = _oracle(layer, given, "forward"), _oracle(layer, {**given, **saved}, "backward")
            _close(layer, forward, wanted[0], (tokens, variant.name))
            backward = layer.call("backward", {**given, **saved}, tokens, variant=number, threads=2)
            _close(layer, backward, wanted[1], (tokens, variant.name))


def test_forward_has_the_bits_of_inference() -> None:
    layer = trained(LONG, "bf16")
    given = layer.sizes.given(150)
    for number in range(len(VARIANTS)):
        forward = layer.call("forward", given, 150, variant=number)
        inference = layer.run(given, given, variant=number)
        assert torch.equal(forward["y"], inference["y"])


@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_forward_has_them_for_any_number_of_rows(dtype: str) -> None:
    """Some numbers are multiplied with swapped operands, others by expanded weights."""
    layer = Trained(Sizes(64, 32, 2, 1, dtype), VARIANTS[:1])
    given = layer.sizes.given(220)
    for tokens in range(20, 220, 11):
        some = {name: t[:tokens] if name in ("x", "d.y", "d.probability", "d.z") else t for name, t in given.items()}
        forward = layer.call("forward", some, tokens, threads=2)
        assert torch.equal(forward["y"], layer.run(some, some)["y"]), tokens


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    layer = trained(LONG, "bf16")
    given = layer.sizes.given(300)
    for number in range(len(VARIANTS)):
        for entry in ("forward", "backward"):
            alone = layer.call(entry, given, 300, variant=number)
            for threads in (2, 5):
                found = layer.call(entry, given, 300, variant=number, threads=threads)
                assert all(torch.equal(found[name], alone[name]) for name in alone), (entry, threads)
            given = {**given, **alone}


def test_gradients_of_a_token_do_not_depend_on_its_batch() -> None:
    layer = trained(LONG, "bf16")
    given = layer.sizes.given(120)
    for number in range(len(VARIANTS)):

        def run(part: slice, number: int = number) -> torch.Tensor:
            rows = {n: t[part] if n in ("x", "d.y", "d.probability", "d.z") else t for n, t in given.items()}
            tokens = rows["x"].shape[0]
            saved = layer.call("forward", rows, tokens, variant=number)
            return layer.call("backward", {**rows, **saved}, tokens, variant=number)["d.x"]

        whole = run(slice(None))
        for part in (slice(0, 1), slice(17, 60), slice(119, 120)):
            assert torch.equal(run(part), whole[part])


def test_experts_without_rows_get_zeros_and_empty_slots_nothing() -> None:
    layer = trained(SMALL, "f32")
    given = layer.sizes.given(20)
    saved = layer.call("forward", given, 20)
    index = saved["routed.index"].clone()
    index[index == 2] = -1
    index[7] = -1
    given = {**given, **saved, "routed.index": index}
    rows = int((index >= 0).sum())  # those behind them hold anything
    for name in ("routed.gate", "routed.up"):
        given[name] = given[name].clone()
        given[name][rows:] = float("nan")
    for number in range(len(VARIANTS)):
        found = layer.call("backward", given, 20, variant=number, threads=2)
        _close(layer, found, _oracle(layer, given | {n: given[n][:rows] for n in ("routed.gate", "routed.up")},
                                     "backward"), VARIANTS[number].name)  # fmt: skip
        assert not found["d.routed.gate.weight"][2].any()


def test_arguments_are_checked() -> None:
    layer = trained(SMALL, "f32")
    given = layer.sizes.given(4)
    with pytest.raises(
        RuntimeError, match=r"parameter `routed\.gate\.weight` must be a contiguous f32 tensor of shape"
    ):
        layer.call("forward", {**given, "routed.gate.weight": given["routed.down.weight"]}, 4)
    saved = layer.call("forward", given, 4)
    with pytest.raises(
        RuntimeError, match=r"saved `routed\.gate` must be a contiguous f32 tensor of shape \[T\*3, 7\]"
    ):
        layer.call("backward", {**given, **saved, "routed.gate": saved["routed.gate"][:4]}, 4)
