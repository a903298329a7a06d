"""`python -m bench.parallel.moves`: what calls feel of experts that move, and of ranks that join and leave.

Processes of this machine, without shaped links: what is measured is how long calls are kept, not how fast links are.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

import moec
from bench.parallel.rank import quiet
from bench.parallel.sizes import Size
from bench.shapes import REPOSITORY
from moec.placement.problem import Placement
from moec.runtime.parallel.layer import ParallelLayer
from moec.runtime.parallel.moving.follow import follow
from moec.runtime.parallel.moving.gate import Swapped
from moec.runtime.parallel.moving.moving import Moving, Options

SOURCE = Path(__file__).with_name("growing.moe")
RANKS, FIRST = 4, 2
WARM = 20
LONGEST = 300

Ask = Callable[[Moving], Future[Swapped] | None]


@dataclass
class Phase:
    """Something that is asked, and the calls until it is done; for `seconds` where nothing is asked."""

    name: str
    ask: Ask
    seconds: float
    begun: float = 0.0
    future: Future[Swapped] | None = None

    def begin(self, moving: Moving) -> None:
        self.future, self.begun = self.ask(moving), time.perf_counter()

    @property
    def over(self) -> bool:
        return self.future.done() if self.future is not None else time.perf_counter() > self.begun + self.seconds

    def report(self, moving: Moving, calls: Sequence[tuple[float, float]]) -> dict[str, Any]:
        """Calls of this time: how many, their median and longest, the longest time without an end; what moved."""
        chosen = [(begin, end) for begin, end in calls if end >= self.begun]
        ends = [end for _, end in calls][-len(chosen) - 1 :]
        travelled = [one for one in moving.decisions if one["event"] == "travelled"]
        moved = travelled[-1] if self.future is not None and travelled else {}
        return {
            "name": self.name,
            "seconds": time.perf_counter() - self.begun,
            "calls": len(chosen),
            "median_ms": 1e3 * statistics.median(end - begin for begin, end in chosen),
            "longest_ms": 1e3 * max(end - begin for begin, end in chosen),
            "gap_ms": 1e3 * max(b - a for a, b in pairwise(ends)),
            "pause_ms": 1e3 * self.future.result().seconds if self.future is not None else None,
            **{name: moved.get(name) for name in ("experts", "sent", "received", "staged")},
        }


def exchanged(*pairs: tuple[int, int]) -> Ask:
    """Let experts of the first placement change places; all have one copy afterwards."""

    def ask(moving: Moving) -> Future[Swapped]:
        table, *rest = moving.tables
        holders = [expert * FIRST // table.experts for expert in range(table.experts)]
        for one, other in pairs:
            holders[one], holders[other] = holders[other], holders[one]
        return moving.move([table.following(Placement.even([[rank] for rank in holders])), *rest])

    return ask


def phases(seconds: float) -> list[Phase]:
    return [
        Phase("calls alone", lambda _: None, seconds),
        Phase("three experts each way, all slots full", exchanged((2, 18), (3, 19), (4, 20)), 0),
        Phase("one expert each way, into free slots", exchanged((2, 18), (3, 19), (4, 20), (5, 21)), 0),
        Phase("from two ranks to four", lambda moving: moving.rescale(RANKS), 0),
        Phase("calls on four ranks", lambda _: None, seconds),
        Phase("from four ranks to two", lambda moving: moving.rescale(FIRST), 0),
        Phase("calls alone again", lambda _: None, seconds),
    ]


def on_a_rank(path: str, size: dict[str, int], share: float, seconds: float, alone: bool, lock: str | None) -> Any:
    """What the phases were like for the first rank."""
    wanted = Size(**size)
    layer = moec.load(path, mesh=init_device_mesh("cpu", (RANKS,), mesh_dim_names=("gpu",)), elastic=True)
    groups = {ranks: dist.new_group(list(range(ranks))) for ranks in (FIRST, RANKS)}
    if layer.serves:
        layer.load_state_dict({"router.logits.weight": wanted.router(), **wanted.experts(range(wanted.count))})
    x = wanted.x(layer.rank)
    with follow([layer], Options(share=share, look=None, pace=0.02)) as moving, quiet(alone, lock):
        return _calls(layer, moving, x, groups, phases(seconds))


def _calls(
    layer: ParallelLayer,
    moving: Moving,
    x: torch.Tensor,
    groups: Mapping[int, dist.ProcessGroup],
    left: list[Phase],
) -> list[dict[str, Any]]:
    calls: list[tuple[float, float]] = []
    found: list[dict[str, Any]] = []
    now: Phase | None = None
    while True:
        begin = time.perf_counter()
        if not moving.begin().serves:
            if not moving.join():
                return found
            continue
        layer(x)
        calls.append((begin, time.perf_counter()))
        if moving.leads and len(calls) > WARM and (now is None or now.over):
            if now is not None:
                found.append(now.report(moving, calls))
            now = left.pop(0) if left else None
            if now is not None:
                now.begin(moving)
        ended = torch.tensor([int(moving.leads and now is None and not left)])
        dist.broadcast(ended, 0, groups[layer.table.positions])
        if ended:
            moving.stop()
            return found


def run(seconds: float, **arguments: object) -> list[dict[str, Any]]:
    """`on_a_rank` on processes of this machine; what the first one returned."""
    with tempfile.TemporaryDirectory(prefix="moec-moves-") as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        module = f"{__spec__.name}:on_a_rank" if __spec__ is not None else ""
        surroundings = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "WORLD_SIZE": str(RANKS),
            "GLOO_SOCKET_IFNAME": "lo",
        }
        given = json.dumps({"seconds": seconds, **arguments})
        ranks = [
            subprocess.Popen(
                [sys.executable, "-m", "bench.parallel.rank", module, given, f"{folder}/{rank}.json"],
                env={**surroundings, "RANK": str(rank)},
            )
            for rank in range(RANKS)
        ]
        try:
            if any(process.wait(LONGEST) for process in ranks):
                sys.exit("a rank failed")
        finally:
            for process in ranks:
                process.kill()
        found: list[dict[str, Any]] = json.loads(Path(folder, "0.json").read_text())
        return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.parallel.moves", description=__doc__)
    parser.add_argument("--tokens", type=int, default=32, help="of every rank in a call")
    parser.add_argument("--share", type=float, default=0.25, help="of a link's time that moves may take")
    parser.add_argument("--seconds", type=float, default=3.0, help="of calls without moves")
    parser.add_argument("--priority", choices=("normal", "realtime"), default="normal")
    parser.add_argument("--lock", type=str, help="a file that others lock too, so that one at a time is timed")
    options = parser.parse_args()
    size = Size(tokens=options.tokens)
    with tempfile.TemporaryDirectory(prefix="moec-moves-") as folder:
        path = moec.compile(SOURCE, Path(folder) / "layer.so", layout="Growing", defines=size.defines)
        found = run(
            options.seconds,
            path=str(path),
            size=asdict(size),
            share=options.share,
            alone=options.priority == "realtime",
            lock=options.lock,
        )
    for phase in found:
        moved = ""
        if phase["experts"]:
            mb = (phase["sent"] + phase["received"]) / 1e6
            moved = f"; {phase['experts']} copies, {mb:.0f} MB here, {phase['staged'] / 1e6:.0f} MB staged"
        pause = "" if phase["pause_ms"] is None else f"; the change kept a step for {phase['pause_ms']:.2f} ms"
        print(
            f"{phase['name']}: {phase['seconds']:.2f} s, {phase['calls']} calls, median {phase['median_ms']:.1f} ms, "
            f"longest {phase['longest_ms']:.1f} ms, {phase['gap_ms']:.1f} ms without an end{pause}{moved}"
        )


if __name__ == "__main__":
    main()
