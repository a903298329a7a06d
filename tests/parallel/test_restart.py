"""Training goes on from checkpoints: after a process was killed, and on another number of ranks."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch

import moec
from examples import train_on_mesh
from moec.runtime.parallel.checkpoints import latest, load
from tests.parallel.ranks import run

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
BATCH, STEPS = 24, 6


@cache
def artifact(layout: str) -> Path:
    path = Path(mkdtemp(prefix="moec-test-")) / f"{layout}.so"
    return moec.compile(ROOT / "examples" / "train_on_mesh.moe", path, training=True, layout=layout)


def on_rank(path: str, steps: int, folder: str) -> float:
    return train_on_mesh.train(path, steps, 2, Path(folder), BATCH, 120.0)


def in_one_process(path: Path, steps: int) -> tuple[dict[str, torch.Tensor], float]:
    layer = moec.load(path, training=True).reset_parameters(7)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.01)
    value = 0.0
    for step in range(steps):
        x, target = train_on_mesh.data(step, BATCH, 32)
        y, auxiliary = layer(x)
        loss = (y - target).square().sum() / y.numel() + auxiliary
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        value = float(loss.detach())
    return layer.state_dict(), value


@pytest.mark.slow
def test_training_goes_on_on_other_ranks_and_ends_where_one_process_ends(tmp_path: Path) -> None:
    two, four, folder = str(artifact("OnTwo")), str(artifact("OnFour")), str(tmp_path)
    run(on_rank, 4, four, 2, folder)
    run(on_rank, 2, two, 4, folder)
    values = run(on_rank, 4, four, STEPS, folder)
    state, value = in_one_process(Path(two), STEPS)
    assert values == [pytest.approx(value, rel=1e-5)] * 4
    found = latest(tmp_path)
    assert found == tmp_path / f"step_{STEPS}"
    layer = moec.load(two, training=True)
    assert load(found, layer) == {"step": STEPS}
    for name, expected in state.items():
        # Gradients of weights that all ranks have are sums over ranks, in another order than in one process.
        torch.testing.assert_close(layer.state_dict()[name], expected, rtol=1e-3, atol=1e-4, msg=name)


def torchrun(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "2", "--monitor-interval", "0.2", str(ROOT / "examples" / "train_on_mesh.py")]
    command += [str(artifact("OnTwo")), "--checkpoints", str(folder), "--batch", str(BATCH), *options]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def processes(text: str, rank: int) -> list[int]:
    return [int(number) for number in re.findall(rf"rank {rank} of 2, process (\d+)", text)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)], ids=["killed", "stopped"]
)
def test_torchrun_goes_on_after_a_rank_died(tmp_path: Path, number: signal.Signals) -> None:
    steps = 10**6  # more than can be done before the rank dies
    runs = torchrun(
        tmp_path, "--steps", str(steps), "--every", "5", "--timeout", "3" if number == signal.SIGSTOP else "30"
    )
    assert runs.stdout is not None
    text = ""
    try:
        while not processes(text, 1):
            text += runs.stdout.readline()
        while latest(tmp_path) is None:
            assert runs.poll() is None, text + runs.stdout.read()
            time.sleep(0.05)
        os.kill(processes(text, 1)[0], number)
        while len(processes(text, 1)) < 2 or len(processes(text, 0)) < 2:
            line = runs.stdout.readline()
            assert line, text
            text += line
    finally:
        for pid in (*processes(text, 0), *processes(text, 1)):
            _kill(pid)
        runs.kill()
        runs.wait()
    begun = [int(step) for step in re.findall(r"begins at step (\d+)", text)]
    assert begun[:2] == [0, 0]
    assert min(begun[2:4]) >= 5, "they went on from a checkpoint"
    if number == signal.SIGSTOP:
        assert "rank 1: no sign of life" in text


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
