"""What bench/gpu.py does without a GPU: the reference, the peers, and the tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import moec
from bench.cuda import data, peers, reference, table
from bench.cuda.ceilings import Ceilings
from bench.cuda.shapes import CHECKED, SHAPES, Shape
from moec.formats import FORMATS
from moec.runtime.dtypes import TORCH_DTYPES

CPU = torch.device("cpu")
TINY = Shape("Tiny", 5, 72, 40, 3, 29)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "Tiny.moe").write_text(TINY.source)
    return moec.compile(folder / "Tiny.moe")


@pytest.mark.parametrize("routing", data.ROUTINGS)
def test_moec_on_the_cpu_agrees_with_the_reference(compiled: Path, routing: str) -> None:
    seed = data.fresh_seed()
    weights, x = data.weights(TINY, CPU, seed, routing), data.tokens(TINY, TINY.tokens, CPU, seed)
    layer = moec.load(compiled)
    layer.load_state_dict(dict(weights))
    with torch.no_grad():
        result = layer(x)
    outcome = reference.compare(TINY, weights, x, result)
    assert outcome.ok, (seed, outcome)
    assert outcome.tokens + outcome.unclear == TINY.tokens
    result[3, 5] = float("nan")
    assert not reference.compare(TINY, weights, x, result).ok
    assert not reference.compare(TINY, weights, x, layer(x) * 1.05).ok


@pytest.mark.parametrize("peer", [peers.loop, peers.grouped_mm])
@pytest.mark.parametrize("routing", ["random", "skewed", "one", "half"])
def test_peers_agree_with_the_reference(peer: peers.Peer, routing: str) -> None:
    seed = data.fresh_seed()
    weights, x = data.weights(TINY, CPU, seed, routing), data.tokens(TINY, TINY.tokens, CPU, seed)
    assert reference.compare(TINY, weights, x, peer(TINY, weights, x)).ok, seed


def test_shared_experts_are_added_to_the_reference(tmp_path: Path) -> None:
    shape = Shape("Shared", 4, 64, 32, 2, 21, codes="int4", group=32, shared=(48, 32))
    (tmp_path / "Shared.moe").write_text(shape.source)
    weights, x = data.weights(shape, CPU, 5), data.tokens(shape, shape.tokens, CPU, 5)
    layer = moec.load(moec.compile(tmp_path / "Shared.moe"))
    layer.load_state_dict(dict(weights))
    assert reference.compare(shape, weights, x, layer(x)).ok
    weights["common1.down.weight"][1].zero_()
    assert not reference.compare(shape, weights, x, layer(x)).ok


@pytest.mark.parametrize("format", ["int8", "fp8_e4m3"])
def test_codes_and_scales_are_given_to_the_layer(format: str, tmp_path: Path) -> None:
    shape = Shape("Codes", 4, 64, 32, 2, 21, codes=format)
    (tmp_path / "Codes.moe").write_text(shape.source)
    weights, x = data.weights(shape, CPU, 5), data.tokens(shape, shape.tokens, CPU, 5)
    assert weights["routed.up.weight"].dtype == TORCH_DTYPES[FORMATS[format].element]
    layer = moec.load(moec.compile(tmp_path / "Codes.moe"))
    layer.load_state_dict(dict(weights))
    assert reference.compare(shape, weights, x, layer(x)).ok
    assert shape.expert_bytes(3) == 3 * (3 * 64 * 32 + 4 * (2 * 32 + 64))


@pytest.mark.parametrize(
    ("format", "given", "some"),
    [("int4", True, None), ("int4", False, None), ("int4", False, 2), ("ternary", True, None)],
)
def test_small_codes_have_scales_of_groups(format: str, given: bool, some: int | None, tmp_path: Path) -> None:
    shape = Shape("Groups", 4, 64, 32, 2, 21, codes=format, group=32, given=given, some=some)
    (tmp_path / "Groups.moe").write_text(shape.source)
    weights, x = data.weights(shape, CPU, 5), data.tokens(shape, shape.tokens, CPU, 5)
    layer = moec.load(moec.compile(tmp_path / "Groups.moe"))
    layer.load_state_dict(dict(weights))
    assert reference.compare(shape, weights, x, layer(x)).ok
    bits = FORMATS[format].bits
    assert shape.expert_bytes(3) == 3 * 3 * 64 * 32 * (bits / 8 + 2 / 32)
    for name in ("gate", "up", "down") if not given else ():
        floats = weights[f"routed.{name}.weight"]
        codes, scales = moec.quantize(floats, format, group=32)
        assert torch.equal(codes * scales.float().repeat_interleave(32, -1), floats.float()), name


def test_routing_is_steered() -> None:
    def counts(routing: str) -> torch.Tensor:
        weights, x = data.weights(TINY, CPU, 1, routing), data.tokens(TINY, 200, CPU, 1)
        return torch.bincount(peers.route(TINY, weights, x)[0].flatten(), minlength=TINY.experts)

    assert counts("one").tolist() == [200, 200, 200, 0, 0]
    assert counts("half").tolist() == [0, 0, 200, 200, 200]
    assert counts("random").min() > 0


def test_tables() -> None:
    shape = SHAPES["E128"]
    limits = Ceilings(matmul=800.0, copy=3000.0)
    rows = [
        table.Measured(shape, 32768, "moec", 0.005),
        table.Measured(shape, 32768, "Triton", None, "no triton"),
    ]
    text = table.prefill(rows, limits).splitlines()
    assert text[2] == "| E128 | 32768 | moec | 5.000 | 495 | 62% | 550 |"
    assert text[3] == "| E128 | 32768 | Triton | no triton | | | |"
    text = table.decode([table.Measured(shape, 1, "moec", 40e-6)], [8], limits).splitlines()
    assert text[2] == "| E128 | 1 | 8 | moec | 40.0 | 25.2 | 1.59 |"


def test_layers_in_f16_have_values_of_f16() -> None:
    shape = CHECKED["Half"]
    assert ": f16\n" in shape.source
    assert data.tokens(shape, 3, CPU, 0).dtype is torch.float16
    assert data.weights(shape, CPU, 0)["routed.down.weight"].dtype is torch.float16


def test_layers_have_the_names_of_their_files() -> None:
    assert all(name == shape.name and f"layer {name}(" in shape.source for name, shape in CHECKED.items())
