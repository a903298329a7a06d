"""What is asked of a layer that is trained: the oracle's gradients, whose slope is that of the layer itself."""

from __future__ import annotations

from contextlib import AbstractContextManager
from unittest.mock import patch

import numpy as np
import torch
from torch_mlir import ir

from moec import oracle, passes
from moec.dialect import context
from moec.oracle import scalars
from moec.pipeline import ir_text
from moec.runtime.dtypes import TORCH_DTYPES
from moec.runtime.native import Kernel
from moec.runtime.step import Step
from tests.bits import same_bits
from tests.fuzz.bounds import exact, wanted
from tests.fuzz.inference import Packed
from tests.fuzz.tensors import Named, inputs
from tests.guarded import Guarded, guarded, guarded_copy

GRADIENTS = {"f32": 5e-5, "bf16": 3e-2, "f16": 5e-3}
"""Norm of the difference over that of the gradient."""
_PIPELINE = ("canonicalize", "differentiate", "canonicalize")
_SLOPE = 2e-4
MOST_SLOPES = 33
"""Tokens up to which slopes are computed."""


def check(text: str, layer: Packed, tokens: tuple[int, ...], routing: str, seed: int) -> None:
    """Gradients of random sums of what `forward` gives.

    text: the layer at graph level
    """
    graph, module = (ir_text.parse(text, "graph", context()) for _ in range(2))
    passes.run(module, passes.parse_pipeline(_PIPELINE))
    for count in tokens:
        generator = torch.Generator().manual_seed(seed + count)
        tensors = inputs(layer.manifest, count, routing, generator)
        arrays = {name: exact(tensor) for name, tensor in {**layer.given, **tensors}.items()}
        sure = wanted(lambda these: oracle.run(graph, these)["y"], arrays, seed).sure
        if not sure.all() and not layer.manifest.guarantees.isolated:
            continue
        tensors = {name: tensor[torch.from_numpy(sure)].contiguous() for name, tensor in tensors.items()}
        smooth = count <= MOST_SLOPES and routing not in ("no router", "zeros")  # which lie on ties and kinks
        _compare(layer, module, tensors, generator, smooth, f"{layer.kernel.variant}, {count} tokens, {routing}")


def _compare(
    layer: Packed, module: ir.Module, tensors: Named, generator: torch.Generator, smooth: bool, what: str
) -> None:
    kernel, step = layer.kernel, layer.kernel.step
    assert step is not None
    tokens = len(tensors["x"])
    results = _forward(kernel, step, layer.given, tensors, 1)
    seeds = [torch.randn(results[i].shape, generator=generator).to(results[i].dtype) for i in step.seeds]
    found = _backward(kernel, step, layer.given, tensors, results, seeds, 1)
    assert all(map(same_bits, results, _forward(kernel, step, layer.given, tensors, 2))), (
        f"{what}: forward, two threads"
    )
    again = _backward(kernel, step, layer.given, tensors, results, seeds, 2)
    assert all(map(same_bits, found, again)), f"{what}: other gradients with two threads"

    arrays = {name: exact(tensor) for name, tensor in {**layer.given, **tensors}.items()}
    forward = oracle.run(module, arrays, "L_forward")
    names = [step.results[i].name for i in step.seeds]
    given = {f"d.{name}": exact(one) for name, one in zip(names, seeds, strict=True)}
    backward = oracle.run(module, {**arrays, **forward, **given}, "L_backward")
    dtype = layer.manifest.inputs[0].dtype
    taken = [*layer.manifest.inputs, *layer.manifest.parameters]
    for index, got in zip(step.gradients, found, strict=True):
        name, own = taken[index].name, taken[index].dtype
        want = backward[f"d.{name}"]
        limit = max(GRADIENTS[dtype], GRADIENTS[own]) * (1 if tokens > 4 else 3)
        error, size = np.linalg.norm(exact(got) - want), np.linalg.norm(want)
        assert error <= limit * size + 1e-6, f"{what}: the gradient of {name} is off by {error / max(size, 1e-30):.3g}"
    if smooth:
        _slope(module, arrays, given, names, what)


def _forward(kernel: Kernel, step: Step, weights: Named, tensors: Named, threads: int) -> list[torch.Tensor]:
    tokens = len(tensors["x"])
    room = guarded((kernel.workspace_bytes(tokens, threads, "forward_workspace_bytes"),), torch.uint8, alignment=64)
    out = [guarded(one.shape(tokens), one.dtype) for one in step.results]
    kernel.call("forward", threads, room.tensor, *_given(kernel, weights, tensors), *(one.tensor for one in out))
    return _intact(room, out)


def _backward(
    kernel: Kernel,
    step: Step,
    weights: Named,
    tensors: Named,
    results: list[torch.Tensor],
    seeds: list[torch.Tensor],
    threads: int,
) -> list[torch.Tensor]:
    tokens, manifest = len(tensors["x"]), kernel.library.manifest
    room = guarded((kernel.workspace_bytes(tokens, threads, "backward_workspace_bytes"),), torch.uint8, alignment=64)
    shapes = [((tokens, *one.row), one.dtype) for one in manifest.inputs]
    shapes += [(one.shape, one.dtype) for one in manifest.parameters]
    out = [guarded(shapes[index][0], TORCH_DTYPES[shapes[index][1]]) for index in step.gradients]
    saved = [guarded_copy(one) for one in results[len(results) - len(step.saved) :]]
    arguments = (*_given(kernel, weights, tensors), *saved, *map(guarded_copy, seeds))
    kernel.call("backward", threads, room.tensor, *arguments, *(one.tensor for one in out))
    return _intact(room, out)


def _given(kernel: Kernel, weights: Named, tensors: Named) -> list[torch.Tensor]:
    manifest = kernel.library.manifest
    return [
        *(guarded_copy(tensors[one.name]) for one in manifest.inputs),
        *(guarded_copy(weights[one.name]) for one in manifest.parameters),
    ]


def _intact(room: Guarded, out: list[Guarded]) -> list[torch.Tensor]:
    assert all(one.intact for one in (room, *out)), "something was written beside a tensor"
    return [one.tensor.clone() for one in out]


def _slope(
    module: ir.Module,
    arrays: dict[str, np.ndarray],
    seeds: dict[str, np.ndarray],
    names: list[str],
    what: str,
) -> None:
    """Gradients are the slope of what the oracle computes without rounding, along random directions."""
    rng = np.random.default_rng(0)

    def value(at: dict[str, np.ndarray]) -> float:
        results = oracle.run(module, at, "L_forward")
        return float(sum((results[name] * seeds[f"d.{name}"]).sum() for name in names))

    with _unrounded():
        forward = oracle.run(module, arrays, "L_forward")
        gradients = oracle.run(module, {**arrays, **forward, **seeds}, "L_backward")
        for key, gradient in gradients.items():
            name = key.removeprefix("d.")
            if not gradient.size:
                continue
            direction = rng.standard_normal(gradient.shape)
            slope = float((gradient * direction).sum())
            allowed = _SLOPE * (abs(slope) + float(np.linalg.norm(gradient)) + 1e-4)
            for step in (1e-6, 1e-7):  # a kink is not met by both
                ends = [value({**arrays, name: arrays[name] + sign * step * direction}) for sign in (1, -1)]
                missed = abs((ends[0] - ends[1]) / (2 * step) - slope)
                if missed <= allowed:
                    break
            else:
                raise AssertionError(f"{what}: the slope along {name} is off by {missed:.3g} of {slope:.3g}")


def _unrounded() -> AbstractContextManager[object]:
    return patch.object(scalars, "round_to", lambda values, element: values)
