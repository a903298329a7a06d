"""`python -m bench.parallel.scale`: schedules of one layer on 8 to 4,096 simulated devices, as Markdown tables.

The layer has the sizes of DeepSeek-V3 (8 experts a token, rows sent in eight bits and returned in bf16, one expert a
device or 256 in all), the devices 400 TFLOP/s, the links those of examples/deepseek_v3_pod.moe.  The second table is
of recorded calls: OLMoE's experts and the choices of examples/olmoe_chat.trace.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from moec.artifact.traffic import Zipf
from moec.schedule.build import BLOCKING, Options, forward
from moec.schedule.choose import Allowed, Chooser
from moec.schedule.demand import Demand, Held, Load
from moec.schedule.machine import Layer, guess
from moec.schedule.mesh import Axis, Mesh
from moec.schedule.predict import predict
from moec.schedule.routing import Choices
from moec.schedule.simulate import simulate, simulate_trace
from moec.schedule.steps import Wiring

TRACE = Path(__file__).parents[2] / "examples" / "olmoe_chat.trace"
BOTH = ("node", "gpu")
WIRING = Wiring(BOTH, BOTH, BOTH)
SLOTS = 8
NODE = 8


def mesh(ranks: int) -> Mesh:
    """Nodes of 8 devices; 50 GB/s a device leave a node, 160 GB/s stay inside."""
    return Mesh("Pod", (Axis("node", ranks // NODE, 4e11, 5e-6), Axis("gpu", NODE, 1.6e11, 2e-6)), None, 4e14)


def layer(experts: int, d: int, ff: int, sent: int) -> Layer:
    """SwiGLU experts in bf16; rows are sent with `sent` bytes an element and returned in bf16."""
    flops, size = 6.0 * d * ff, 6.0 * d * ff
    return Layer(
        experts, SLOTS, 2 * d, 2 * d, sent * d, 2 * d, 4 * d, 4 * d, flops, size, 2.0 * d * experts, 4.0 * d * experts
    )


def even(experts: int, ranks: int) -> Held:
    """Neighbours together."""
    return Held.of([[expert * ranks // experts] for expert in range(experts)])


def growth(counts: list[int], tokens: int, exponent: float) -> None:
    columns = (
        "devices", "blocking", "direct, 2 chunks", "hierarchical, 2 chunks", "chosen", "which is", "exchange alone",
        "node links busy", "simulated in",
    )  # fmt: skip
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for ranks in counts:
        experts, on = max(256, ranks), mesh(ranks)
        shares = np.random.default_rng(0).permutation(Zipf(exponent).shares(experts, SLOTS))
        load = Load(float(tokens), Choices(tuple(shares.tolist()), SLOTS), even(experts, ranks))
        sizes = layer(experts, 7168, 2048, 1)
        machine = guess(sizes, on)
        choice = Chooser(WIRING, on, sizes, load, machine, Allowed(("dispatch", "combine"))).choose()
        tried = (
            BLOCKING,
            Options(chunks=2, deduplicate=True),
            Options(chunks=2, deduplicate=True, hierarchical=True),
            choice.chosen.options,
        )
        begin = time.perf_counter()
        found = [simulate(Demand(forward(WIRING, one), WIRING, on, sizes, load), machine) for one in tried]
        took = time.perf_counter() - begin
        times = " | ".join(f"{1e3 * one.seconds:.2f} ms" for one in found)
        last = found[-1]
        busy = f"{last.alone / last.seconds:.0%} | {last.busy['node']:.0%}"
        print(f"| {ranks:,} | {times} | {choice.chosen.what} | {busy} | {took:.1f} s |", flush=True)


def recorded(counts: list[int], tokens: int) -> None:
    print("| devices | even routing | recorded calls: mean | slowest | predicted of the mean load |")
    print("|---|---|---|---|---|")
    for ranks in counts:
        on, sizes = mesh(ranks), layer(64, 2048, 1024, 2)
        machine = guess(sizes, on)
        load = Load(float(tokens), Choices((1 / 64,) * 64, SLOTS), even(64, ranks))
        of = Demand(forward(WIRING, Options(chunks=2, deduplicate=True)), WIRING, on, sizes, load)
        calls = [one.seconds for one in simulate_trace(of, machine, TRACE, tokens=tokens)]
        plain, expected = simulate(of, machine).seconds, predict(replace(of, load=load), machine).seconds
        values = (plain, float(np.mean(calls)), max(calls), expected)
        print(f"| {ranks:,} | " + " | ".join(f"{1e3 * value:.3f} ms" for value in values) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.parallel.scale", description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 64, 512, 4096])
    parser.add_argument("--tokens", type=int, default=4096, help="of each device")
    parser.add_argument("--exponent", type=float, default=0.5, help="of Zipf's law of the routing")
    options = parser.parse_args()
    growth(options.ranks, options.tokens, options.exponent)
    print()
    recorded([ranks for ranks in options.ranks if ranks <= 64], options.tokens)


if __name__ == "__main__":
    main()
