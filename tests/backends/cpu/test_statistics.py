"""What a call tells of its load: counted by native code, on request, and without an effect on the results."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from moec import frontend, oracle, passes
from moec.diagnostics import Source
from moec.dialect import context
from moec.pipeline.ir_text import show
from tests.backends.cpu.artifact import Artifact, aligned
from tests.passes.test_meaning import random_arguments

LAYER = """edition 1
layer L(d = 24, ff = 10) {
  router softmax_top(2)
  experts routed[6] = swiglu(d, ff) : f32
  shared common[1] = swiglu(d, ff) : f32
  tokens capacity(0.75)
}
"""


@cache
def compiled() -> Artifact:
    module = frontend.lower(frontend.load_layer_text(Source("layer.moe", LAYER)), context())
    passes.run(module, passes.parse_pipeline(passes.DEFAULT_PIPELINE))
    return Artifact(show(module))


def arguments(tokens: int) -> dict[str, torch.Tensor]:
    module = frontend.lower(frontend.load_layer_text(Source("layer.moe", LAYER)), context())
    given = random_arguments(module, tokens, np.random.default_rng(tokens))
    return {name: torch.from_numpy(array).float() for name, array in given.items()}


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("tokens", [0, 1, 7, 500])
def test_statistics_are_the_oracles(tokens: int, threads: int) -> None:
    given = arguments(tokens)
    module = frontend.lower(frontend.load_layer_text(Source("layer.moe", LAYER)), context())
    passes.run(module, passes.parse_pipeline(["count-load"]))
    wanted = oracle.run(module, {name: tensor.numpy() for name, tensor in given.items()})
    results = compiled().run(given, given, threads=threads)
    for name in ("chosen", "kept"):
        np.testing.assert_array_equal(results[name], wanted[name], err_msg=name)


@pytest.mark.parametrize("asked", [(), ("chosen",), ("kept",)])
def test_what_is_not_asked_for_changes_nothing(asked: tuple[str, ...]) -> None:
    given, layer = arguments(37), compiled()
    wanted = layer.run(given, given, threads=2)
    counts = {name: torch.full((6,), -1, dtype=torch.int32) if name in asked else None for name in ("chosen", "kept")}
    y = torch.empty_like(wanted["y"])
    workspace = aligned(layer.library.workspace_bytes(0, 37, 2))
    layer.library.run(0, 2, layer.pack(given), workspace, given["x"], y, *counts.values())
    assert torch.equal(y, wanted["y"])
    for name in asked:
        assert torch.equal(counts[name], wanted[name])


def test_a_wrong_tensor_is_refused() -> None:
    given, layer = arguments(3), compiled()
    packed, workspace = layer.pack(given), aligned(layer.library.workspace_bytes(0, 3, 1))
    for wrong in (torch.zeros(5, dtype=torch.int32), torch.zeros(6), 1):
        with pytest.raises(Exception, match="statistic `kept` must be a contiguous i32 tensor of shape \\[6\\]"):
            layer.library.run(0, 1, packed, workspace, given["x"], torch.empty(3, 24), None, wrong)
