"""The runtime over what the compiler makes: a small OLMoE, every variant that this processor can run."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import moec
from moec.errors import UnsupportedCpu
from moec.runtime.module import Layer

pytestmark = pytest.mark.every_variant
D, FF, EXPERTS, K = 48, 24, 64, 8


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compiled") / "olmoe.so"
    moec.compile(Path(__file__).parents[2] / "examples" / "olmoe.moe", path, defines={"d": D, "ff": FF})
    return path


@pytest.fixture(params=["avx512_bf16", "avx512", "avx2", "generic"])
def layer(request: pytest.FixtureRequest, artifact: Path) -> Layer:
    try:
        return moec.load(artifact, variant=request.param).reset_parameters(5)
    except UnsupportedCpu as reason:
        pytest.skip(str(reason))


def reference(x: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
    """Softmax over all experts, the K best, their weights as they are (OLMoE, arXiv:2409.02060), in float64."""
    weight = {name: tensor.double() for name, tensor in state.items()}
    x = x.double()
    score, pick = torch.softmax(x @ weight["router.logits.weight"].T, -1).topk(K)
    gate = torch.einsum("td,tkfd->tkf", x, weight["routed.gate.weight"][pick])
    up = torch.einsum("td,tkfd->tkf", x, weight["routed.up.weight"][pick])
    out = torch.einsum("tkf,tkdf->tkd", torch.nn.functional.silu(gate) * up, weight["routed.down.weight"][pick])
    return torch.einsum("tk,tkd->td", score, out)


def test_computes_the_layer(layer: Layer) -> None:
    x = torch.randn(3, 17, D).bfloat16()
    want = reference(x.reshape(-1, D), dict(layer.state_dict())).reshape(x.shape)
    torch.testing.assert_close(layer(x).double(), want, rtol=2e-2, atol=2e-2 * float(want.abs().max()))


def test_weights_come_back_exactly(layer: Layer, artifact: Path) -> None:
    state = layer.state_dict()
    other = moec.load(artifact)
    other.load_state_dict(state)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, state[name])
    assert layer._store.buffer.data_ptr() % 64 == 0


def test_threads_do_not_change_bits(layer: Layer) -> None:
    x = torch.randn(70, D).bfloat16()
    want, threads = layer(x), torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert torch.equal(layer(x), want)
    finally:
        torch.set_num_threads(threads)
    with ThreadPoolExecutor(4) as pool:
        for start, y in pool.map(lambda start: (start, layer(x[start : start + 9])), range(60)):
            assert torch.equal(y, want[start : start + 9])


def test_inside_torch_compile(layer: Layer) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for tokens in (4, 1, 0, 33):
        x = torch.randn(tokens, D).bfloat16()
        assert torch.equal(compiled(x), layer(x))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_calls_in_a_forked_child(artifact: Path) -> None:
    """OpenMP's threads are not there in the child: waiting for them would take for ever."""
    code = (
        "import os, signal, sys, torch, moec\n"
        "torch.set_num_threads(4)\n"
        f"layer = moec.load({str(artifact)!r}).reset_parameters(5)\n"
        f"x = torch.randn(64, {D}).bfloat16()\n"
        "y = layer(x)\n"
        "if not (child := os.fork()):\n"
        "    signal.alarm(60)\n"
        "    os._exit(0 if torch.equal(layer(x), y) else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("RuntimeWarning: a process that `fork` made") == 1
