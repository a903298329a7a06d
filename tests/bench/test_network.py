"""Namespaces with shaped links are there while they are used, carry what ranks send, and never stay behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.parallel import links
from bench.parallel.launch import RankFailed, run
from bench.parallel.network import Network, Shape, unavailable

WHY = unavailable()
pytestmark = [pytest.mark.privileged, pytest.mark.skipif(WHY is not None, reason=str(WHY)), pytest.mark.long]
ROOT = Path(__file__).resolve().parents[2]
KILLED = """
import os, signal
from bench.parallel.network import Network, Shape
with Network(Shape(1, 1)) as network:
    network.start(0, ["sleep", "600"])
    os.kill(os.getpid(), signal.SIGKILL)
"""


def spaces_of(process: int) -> list[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.startswith(f"moec-{process}-")]


def test_a_killed_owner_leaves_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], cwd=ROOT) as owner:
        owner.wait(200)
        assert owner.returncode == -signal.SIGKILL
        deadline = time.monotonic() + 120
        while spaces_of(owner.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not spaces_of(owner.pid)


def broken() -> None:
    raise ValueError("meant to fail")


def test_a_failing_rank_is_named_and_nothing_stays() -> None:
    with Network(Shape(2, 1)) as network, pytest.raises(RankFailed, match=r"rank [01] ended with 1"):
        run(network, broken)
    for space in network.spaces:
        assert space not in subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_links_are_measured() -> None:
    """A tenth of a gigabit a second between nodes is what the processor can always keep up with."""
    with Network(Shape(2, 1, between=1e8 / 8)) as network:
        (found, *_), _ = run(network, links.on_a_rank, mesh={"node": 2}, alone=False, lock=None)
    assert found["axes"] == ["node"]
    assert found["bandwidth"] > 0
    assert found["seconds"]["1048576"] > 0.9 * 2**20 / (1e8 / 8)  # whatever else the machine does
    assert found["latency"] == min(found["seconds"].values()) > 0


def test_links_are_given_other_bandwidths() -> None:
    with Network(Shape(1, 1, between=1e6, within=1e7)) as network:
        network.reshape(2e6, 3e7)
        (space,), stem = network.spaces, network.spaces[0].removesuffix("-rank0")
        for where, name, rate in (
            (space, "eth0", "240Mbit"),
            (f"{stem}-node0", "rank0", "240Mbit"),
            (f"{stem}-node0", "uplink", "16Mbit"),
            (f"{stem}-core", "node0", "16Mbit"),
        ):
            command = ["tc", "-n", where, "qdisc", "show", "dev", name, "root"]
            assert f"rate {rate} " in subprocess.run(command, capture_output=True, text=True, check=True).stdout
