"""Random layers beside the oracle: few in every run, more where there is time (`--run-slow -m slow`).

They run in a process of their own, so that the file of a layer that ends it is known.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent.parent


SLOW = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize(
    ("first", "layers", "emulated"),
    [
        (0, 2, []),
        (2, 1, ["--emulate"]),
        pytest.param(3, 60, [], marks=SLOW),
        pytest.param(63, 20, ["--emulate"], marks=SLOW),
    ],
)
def test_random_layers(pytestconfig: pytest.Config, first: int, layers: int, emulated: list[str]) -> None:
    seed = f"{pytestconfig.getoption('--seed')}"
    command = [sys.executable, "-m", "tests.fuzz", "--seed", seed, "--first", f"{first}", "--layers", f"{layers}"]
    command += emulated
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    files = done.stdout.split("--- ")
    wrong = "".join(one for one in files if "WRONG" in one) or files[-1]
    assert done.returncode == 0, f"{' '.join(command)}\n{wrong}\n{done.stderr}"
