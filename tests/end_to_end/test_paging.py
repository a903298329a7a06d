"""Layers whose cold experts lie on disk: the same bits, the limit kept, and no thread left behind."""

from __future__ import annotations

import gc
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import moec
from moec.artifact.container import read
from moec.artifact.specialisation import QuantisedExperts, Specialisation
from moec.errors import AdaptationError
from moec.pipeline.respecialise import respecialise
from moec.runtime.adapt.mapped import MappedMemory
from moec.runtime.adapt.published import Build
from moec.runtime.adapt.transfer import transferred
from moec.runtime.adapt.validation import _run
from moec.runtime.module import Layer
from moec.runtime.native import bind, library

EXPERT = 3 * 256 * 256 * 4
LIMIT = 4 * 2**20
LAYER = """edition 1
layer Paged(d = 256, ff = 256) {
  router softmax_top(2)
  experts routed[8] = swiglu(d, ff)
}
layout Small for Paged { page routed within 4 MiB }
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paged")
    (folder / "layer.moe").write_text(LAYER)
    return moec.compile(folder / "layer.moe")


@pytest.fixture
def plain(artifact: Path) -> Layer:
    return moec.load(artifact).reset_parameters(1)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_cold_experts_leave_memory_and_no_bit_changes(artifact: Path, plain: Layer, tmp_path: Path) -> None:
    layer = moec.load(artifact).reset_parameters(1)
    with layer.adapt(cache=tmp_path / "c", journal=tmp_path / "journal", weights=tmp_path) as handle:
        paging = handle.paging
        assert paging is not None
        until(lambda: paging.nbytes <= LIMIT)
        for tokens in (0, 1, 5, 64, 300):
            x = torch.randn(tokens, 256)
            assert torch.equal(layer(x), plain(x))
        until(lambda: paging.nbytes <= LIMIT)
        assert len(paging.present) == (LIMIT - (layer.packed_bytes - 8 * EXPERT)) // EXPERT
        records = lambda: [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()]  # noqa: E731
        until(lambda: {"moved", "sample"} <= {record["event"] for record in records()})
        moved = next(record for record in records() if record["event"] == "moved")
        assert moved["bytes"] >= len(moved["out"]) * EXPERT, "an expert may go more than once"
        until(lambda: records()[-1].get("memory", LIMIT + 1) <= LIMIT)
    x = torch.randn(9, 256)
    assert torch.equal(layer(x), plain(x))


def test_weights_that_come_later_go_to_the_file_too(artifact: Path, plain: Layer, tmp_path: Path) -> None:
    layer = moec.load(artifact)
    with layer.adapt(cache=tmp_path / "c", journal=tmp_path / "journal", weights=tmp_path) as handle:
        paging = handle.paging
        assert paging is not None
        x = torch.randn(33, 256)
        for seed in (1, 2, 1):
            layer.reset_parameters(seed)
            assert torch.equal(layer(x), plain(x)) == (seed == 1)
            until(lambda: paging.nbytes <= LIMIT)
    with layer.adapt(cache=tmp_path / "c", journal=tmp_path / "journal", weights=tmp_path):  # in the same file
        assert torch.equal(layer(x), plain(x))


def test_a_layer_that_is_dropped_takes_its_file_along(artifact: Path, tmp_path: Path) -> None:
    layer = moec.load(artifact).reset_parameters(1)
    layer.adapt(cache=tmp_path / "c", journal=tmp_path / "journal", weights=tmp_path)
    del layer
    gc.collect()
    until(lambda: not any(thread.name == "moec-residency" for thread in threading.enumerate()))


def test_a_folder_that_cannot_be_written(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    layer = moec.load(artifact).reset_parameters(1)
    with pytest.raises(AdaptationError, match="no weights can lie on disk"):
        layer.adapt(cache=tmp_path / "c", journal=tmp_path / "journal", weights=tmp_path / "file")
    assert layer.adaptation is None


FORMATS = {"f32": "", "mixed": "quantize experts(routed, 0, 2..3) as int4(group = 32)"}


@pytest.mark.parametrize("format", FORMATS)
def test_a_call_reads_the_experts_that_it_needs_and_no_others(format: str, tmp_path: Path) -> None:
    layers = []
    for paged in (True, False):
        text = LAYER.replace("swiglu(d, ff)", f"swiglu(d, ff)\n  {FORMATS[format]}")
        (tmp_path / "layer.moe").write_text(text if paged else text[: text.index("layout")])
        path = moec.compile(tmp_path / "layer.moe", tmp_path / f"{paged}.so")
        assert (b"madvise" in read(path).library) == paged
        layers.append(moec.load(path).reset_parameters(1))
    layer, plain = layers
    store = layer._store
    memory = MappedMemory(store.buffer.numel(), tmp_path)
    store.move(memory)
    ranges: list[list[tuple[int, int]]] = [[] for _ in range(8)]  # but for the pages that an expert shares with others
    for region in store.kernel.library.manifest.variants[store.kernel.index].regions:
        for place, expert in enumerate(region.experts):
            if expert >= 0:
                begin, end = (region.offset + n * region.stride for n in (place, place + 1))
                ranges[expert].append((-(-begin // 4096) * 4096, end // 4096 * 4096))
    for tokens in (1, 3, 40):
        memory.drop(piece for pieces in ranges for piece in pieces)
        if any(map(memory.resident, ranges)):
            pytest.skip("the file system keeps files in memory")
        x = torch.randn(1, 256).expand(tokens, -1).contiguous()
        assert torch.equal(layer(x), plain(x))
        held = [memory.resident(pieces) for pieces in ranges]
        whole = [sum(end - begin for begin, end in pieces) for pieces in ranges]
        assert sorted(map(bool, held)) == [False] * 6 + [True] * 2
        assert all(found in (0, wanted) for found, wanted in zip(held, whole, strict=True))


def test_a_variant_reads_what_it_has_in_common_from_the_file(artifact: Path, tmp_path: Path) -> None:
    layer = moec.load(artifact).reset_parameters(1)
    store = layer._store
    memory = MappedMemory(store.buffer.numel(), tmp_path)
    store.move(memory)
    cold = Specialisation("cold", quantised=(QuantisedExperts("routed", (1, 4, 6), "int4", 32, "f32"),))
    code = bind(library(read(respecialise(artifact, cold, tmp_path / "cold.so", layer.variant))), layer.variant)
    weights = transferred(code, store)
    assert weights.lender is store.buffer
    build = Build("cold", 1, code, weights.packed, lender=weights.lender)
    for tokens in (1, 5, 40):
        x = torch.randn(tokens, 256)
        (wanted,), _ = _run(build, [x])
        memory.drop([(0, memory.nbytes)])
        (found,), _ = _run(build, [x])
        assert torch.equal(found, wanted)
