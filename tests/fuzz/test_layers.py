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


@pytest.mark.parametrize("layers", [2, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_random_layers(pytestconfig: pytest.Config, layers: int) -> None:
    seed = f"{pytestconfig.getoption('--seed')}"
    command = [sys.executable, "-m", "tests.fuzz", "--seed", seed, "--layers", f"{layers}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    files = done.stdout.split("--- ")
    wrong = "".join(one for one in files if "WRONG" in one) or files[-1]
    assert done.returncode == 0, f"{' '.join(command)}\n{wrong}\n{done.stderr}"
