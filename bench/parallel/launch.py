"""Runs a function on the ranks of a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.parallel.network import Network
from bench.shapes import REPOSITORY


class RankFailed(Exception):
    """A rank ended with an error, or was not done in time."""


def run(network: Network, job: Callable[..., object], seconds: float = 900.0, **arguments: object) -> list[Any]:
    """`job(**arguments)` on every rank at once; what they returned, in rank order. Both are JSON data.

    `job` is a function at the top of a module. RankFailed, with every rank ended, where one fails or `seconds` pass.
    """
    with tempfile.TemporaryDirectory(prefix="moec-ranks-") as folder:
        outs = [Path(folder) / f"{rank}.json" for rank in range(len(network.spaces))]
        address = f"{job.__module__}:{job.__qualname__}"
        surroundings = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        ranks = [
            network.start(
                rank,
                [sys.executable, "-m", "bench.parallel.rank", address, json.dumps(arguments), str(out)],
                surroundings,
            )
            for rank, out in enumerate(outs)
        ]
        try:
            _wait(ranks, time.monotonic() + seconds)
        finally:
            for process in ranks:
                process.kill()
                process.wait()
        return [json.loads(out.read_text()) for out in outs]


def _wait(ranks: list[subprocess.Popen[bytes]], deadline: float) -> None:
    waiting = dict(enumerate(ranks))
    while waiting:
        for rank, process in list(waiting.items()):
            code = process.poll()
            if code:
                raise RankFailed(f"rank {rank} ended with {code}")
            if code == 0:
                del waiting[rank]
        if time.monotonic() > deadline:
            raise RankFailed(f"ranks {', '.join(map(str, waiting))} were not done in time")
        time.sleep(0.02)
