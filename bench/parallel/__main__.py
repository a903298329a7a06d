"""`python -m bench.parallel`: a scheduled layer beside an unscheduled one, over links that are shaped and measured."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import moec
from bench import machine
from bench.parallel import compare, figures
from bench.parallel.calibrate import shaped
from bench.parallel.launch import run
from bench.parallel.network import Network, Shape, unavailable
from bench.parallel.sizes import SOURCE, Size
from moec.pipeline import Compilation
from moec.pipeline.plan import Plan, plan

LAYOUTS = ("Exact", "Partial", "Lean", "Leanest")
STEADY = 0.05
"""How much longer or shorter the probe behind the calls may take than the one before them."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.parallel", description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--between", type=float, default=1.0, help="Gbit/s of a node's link")
    parser.add_argument("--within", type=float, default=10.0, help="Gbit/s of a rank's link")
    parser.add_argument(
        "--exchange",
        type=float,
        help="part of a blocking call that the exchange shall take: links are slowed or sped up",
    )
    for name, value in asdict(Size()).items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"of the layer; default: {value}")
    parser.add_argument("--priority", choices=("normal", "realtime"), default="normal", help="of the timed parts")
    parser.add_argument("--lock", type=Path, help="a file that others lock too, so that one at a time is timed")
    parser.add_argument("--folder", type=Path, help="for artifacts, machine file and timelines; default: a new one")
    parser.add_argument("--out", type=Path, default=Path("bench/results/parallel.json"))
    return parser.parse_args()


def disturbed(before: float, after: float) -> bool:
    """Did the machine change its pace while calls were compared?"""
    return abs(after / before - 1) > STEADY


def show(
    found: Mapping[str, Mapping[str, float]],
    plans: Mapping[str, Plan],
    expected: Mapping[str, float],
    ranks: list[dict[str, Any]],
) -> None:
    blocking = found["blocking"]["median"]
    for route, taken in found.items():
        least, median, most = (1e3 * taken[name] for name in ("least", "median", "most"))
        line = f"{route}: {median:.0f} ms ({least:.0f} to {most:.0f}), {1e3 * taken['processor']:.0f} ms of processors"
        if route in plans:
            line += f"; {blocking / taken['median']:.2f} times as fast as blocking"
        if route in expected:
            predicted = 1e3 * expected[route]
            line += f"; predicted {predicted:.0f} ms ({predicted / median - 1:+.1%})"
        if route in ranks[0]["errors"]:
            error = max(rank["errors"][route] for rank in ranks)
            line += f"; differs from one process by {error:.1e}" if error else "; the bits of one process"
        print(line)
    share = 1 - found["without"]["median"] / blocking
    print(f"exchange: {share:.1%} of blocking; overlap alone is bounded by {1 / (1 - share):.2f}")
    before, after = ranks[0]["probes"]
    judged = "disturbed, not to be counted" if disturbed(before, after) else "steady"
    print(f"probe of compute: {1e3 * before:.0f} ms before, {1e3 * after:.0f} ms behind: {judged}")
    for route, made in plans.items():
        print(f"{route}: {made.choice.chosen.what}")


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure pieces and links, choose schedules by them, and time these beside the blocking layer."""
    shape = Shape(between=options.between * 1e9 / 8, within=options.within * 1e9 / 8)
    size = Size(**{name: getattr(options, name) for name in asdict(Size())})
    ranks, mesh = shape.nodes * shape.ranks, {"node": shape.nodes, "gpu": shape.ranks}
    timed = {"alone": options.priority == "realtime", "lock": str(options.lock.resolve()) if options.lock else None}
    defines = dict(size.defines)
    source = folder / SOURCE.name
    source.write_text(size.source(ranks))
    local = moec.compile(source, folder / "local.so", layer="Local", defines=dict(size.local(ranks)))
    plain = moec.compile(source, folder / "plain.so", layer="Bench", layout=options.layouts[0], defines=defines)
    with Network(shape) as network:
        common = {"size": asdict(size), "mesh": mesh, **timed}
        tried = []
        if options.exchange is not None:
            tried = shaped(network, options.exchange, size=asdict(size), local=str(local), **timed)
            for between, part in tried:
                print(f"links of {between / 1.25e8:.3f} Gbit/s: exchange {part:.1%}")
        taken = run(network, figures.on_a_rank, artifact=str(plain), **common)[0]
        file = folder / "machine.json"
        file.write_text(taken["machine"])
        plainly = folder / "blocking.json"
        plainly.write_text(taken["blocking"])
        # It sends what a layout with the bits of one process would without a schedule.
        unscheduled = plan(Compilation(source, "Bench", defines, layout="Exact"), plainly, size.tokens * ranks)
        expected = {"blocking": unscheduled.choice.blocking.forward.seconds}
        plans, layers = {}, {}
        for layout in options.layouts:
            plans[layout] = plan(Compilation(source, "Bench", defines, layout=layout), file, size.tokens * ranks)
            expected[layout] = plans[layout].forward.seconds
            path = folder / f"{layout}.so"
            made = Compilation(source, "Bench", defines, layout=layout, machine=file)
            made.write(path)
            layers[layout] = str(path)
        found = run(network, compare.on_a_rank, local=str(local), layers=layers, rounds=options.rounds, **common)
    summary = compare.summary(found)
    show(summary, plans, expected, found)
    for rank, one in enumerate(found):
        for layout, timeline in one["timelines"].items():
            (folder / f"{layout}.{rank}.json").write_text(json.dumps(timeline))
    return {
        "machine": machine.describe(),
        "shape": asdict(network.shape),
        "tried": tried,
        "size": asdict(size),
        "figures": json.loads(taken["machine"]),
        "links": taken["links"],
        "summary": summary,
        "predicted": expected,
        "schedules": {layout: made.choice.chosen.what for layout, made in plans.items()},
        "ranks": found,
    }


def main() -> None:
    options = parse_arguments()
    why = unavailable()
    if why:
        sys.exit(f"skipped: {why}")
    with tempfile.TemporaryDirectory(prefix="moec-parallel-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = measure(options, folder)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"Written: {options.out}")


if __name__ == "__main__":
    main()
