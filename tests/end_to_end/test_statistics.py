"""`layer.statistics` of compiled layers, called in all the ways in which a layer is called."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

import moec
from moec.artifact.traffic import Load, Observed
from moec.errors import AdaptationError, RangeError
from moec.frontend import load_layer
from moec.runtime.module import Layer
from moec.trace import summarise

TABLE = """edition 1
layer Told(d = 32, ff = 16) {
  router hash(8, k = 2)
  experts routed[8] = mlp_relu(d, ff)
  tokens capacity(1.0)
}
"""
PLAIN = """edition 1
layer Plain(d = 32, ff = 16) {
  router softmax_top(2)
  experts routed[8] = swiglu(d, ff)
}
"""


def load(folder: Path, text: str) -> Layer:
    (folder / "layer.moe").write_text(text)
    return moec.load(moec.compile(folder / "layer.moe", folder / "layer.so")).reset_parameters(1)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Layer:
    """A layer whose token `t` chooses the experts t and t + 1, and which drops most where all choose the same."""
    layer = load(tmp_path_factory.mktemp("told"), TABLE)
    table = torch.stack([torch.arange(8), (torch.arange(8) + 1) % 8], 1).to(torch.int32)
    layer.load_state_dict({"router.table": table}, strict=False)
    return layer


def test_calls_are_counted(told: Layer) -> None:
    statistics = told.statistics
    before = statistics.snapshot()
    told(torch.ones(4, 32), torch.tensor([0, 0, 0, 5], dtype=torch.int32))
    told(torch.ones(0, 32), torch.zeros(0, dtype=torch.int32))
    found = statistics.snapshot()
    assert found.calls - before.calls == 2
    assert (found.chosen - before.chosen).tolist() == [3, 3, 0, 0, 0, 1, 1, 0]
    assert found.dropped - before.dropped == 4  # ceil(4 * 2 / 8) = 1 a expert
    assert told.statistics is statistics


def test_a_call_that_fails_is_not_counted(told: Layer) -> None:
    before = told.statistics.snapshot().calls
    with pytest.raises(RangeError):
        told(torch.ones(1, 32), torch.tensor([9], dtype=torch.int32))
    assert told.statistics.snapshot().calls == before


def test_threads_and_torchs_compiler_are_counted(tmp_path: Path) -> None:
    layer = load(tmp_path, PLAIN)
    compiled = torch.compile(layer, fullgraph=True)
    x = torch.randn(3, 32)
    wanted = layer(x)
    statistics = layer.statistics
    threads = [threading.Thread(target=lambda: [layer(x) for _ in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with torch.no_grad():
        compiled(x)
        compiled(x)
    found = statistics.snapshot()
    assert (found.calls, found.total_tokens) == (402, 1206)
    assert found.chosen.sum() > 0  # estimated, as these calls are short
    assert torch.equal(layer(x), wanted)


def test_a_recording_and_prometheus(told: Layer, tmp_path: Path) -> None:
    with told.statistics.record(tmp_path / "told.trace"):
        told(torch.ones(2, 32), torch.tensor([3, 3], dtype=torch.int32))
    found = summarise(tmp_path / "told.trace")
    assert (found.header.layer, found.header.slots, found.counts) == ("Told", 2, [0, 0, 0, 2, 2, 0, 0, 0])
    assert 'moec_expert_slots_total{layer="Told",rank="3",expert="3"}' in told.statistics.prometheus({"rank": "3"})


def test_the_compiler_takes_a_recording(told: Layer, tmp_path: Path) -> None:
    with told.statistics.record(tmp_path / "told.trace"):
        told(torch.ones(5, 32), torch.tensor([3, 3, 1, 6, 3], dtype=torch.int32))
        told(torch.ones(1, 32), torch.tensor([4], dtype=torch.int32))
    text = TABLE.replace("  tokens", '  quantize coldest(routed, 2, by = "told.trace") as int4(group = 16)\n  tokens')
    text += 'load Seen { batch = 1..8; routing = trace("told.trace") }\nlayout Serve for Told under Seen {\n}\n'
    (tmp_path / "layer.moe").write_text(text)
    layer = load_layer(tmp_path / "layer.moe")
    assert layer.routed.subsets[1].numbers == (0, 7)  # of those chosen once, 7 is the coldest
    assert layer.layout is not None
    assert layer.layout.policy.load == Load("Seen", (1, 8), Observed((0, 1, 1, 3, 4, 1, 1, 1), ((1, 1), (4, 1))))


def test_a_layer_that_does_not_count_says_why(tmp_path: Path) -> None:
    (tmp_path / "layer.moe").write_text(PLAIN)
    text = moec.pipeline.Compilation(tmp_path / "layer.moe").emit("graph")
    lines = [line.replace("moe.routed", "moe.nothing") for line in text.splitlines()]
    (tmp_path / "layer.mlir").write_text("\n".join(lines))
    layer = moec.load(moec.compile(tmp_path / "layer.mlir")).reset_parameters(1)
    with pytest.raises(AdaptationError, match="does not count its load"):
        _ = layer.statistics
