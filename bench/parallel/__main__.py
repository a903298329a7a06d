"""`python -m bench.parallel`: what shaped links give, and a scheduled layer beside an unscheduled one."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import moec
from bench import machine
from bench.parallel import compare, links
from bench.parallel.launch import run
from bench.parallel.network import Network, Shape, unavailable
from bench.parallel.sizes import SOURCE, Size

MB = 1e6


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.parallel", description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    for name, value in asdict(Size()).items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"of the layer; default: {value}")
    parser.add_argument("--priority", choices=("normal", "realtime"), default="normal", help="of the timed parts")
    parser.add_argument("--lock", type=Path, help="a file that others lock too, so that one at a time is timed")
    parser.add_argument("--out", type=Path, default=Path("bench/results/parallel.json"))
    return parser.parse_args()


def show_links(found: list[dict[str, Any]]) -> None:
    for link in found:
        print(
            f"over {' and '.join(link['axes'])}: {link['bandwidth'] / MB:.0f} MB/s each way, "
            f"{1e6 * link['latency']:.0f} us a small exchange, {1e9 * link['processor']:.1f} ns of processor a byte"
        )


def show_layer(found: dict[str, dict[str, float]]) -> None:
    for route, taken in found.items():
        least, median, most = (1e3 * taken[name] for name in ("least", "median", "most"))
        print(f"{route}: {median:.0f} ms ({least:.0f} to {most:.0f})")
    share = 1 - found["without"]["median"] / found["blocking"]["median"]
    print(f"exchange: {share:.1%} of blocking; overlap alone is bounded by {1 / (1 - share):.2f}")


def main() -> None:
    options = parse_arguments()
    why = unavailable()
    if why:
        sys.exit(f"skipped: {why}")
    shape = Shape()
    size = Size(**{name: getattr(options, name) for name in asdict(Size())})
    ranks = shape.nodes * shape.ranks
    timed = {
        "alone": options.priority == "realtime",
        "lock": str(options.lock.resolve()) if options.lock else None,
    }
    with tempfile.TemporaryDirectory(prefix="moec-parallel-") as folder:
        local = moec.compile(SOURCE, Path(folder) / "local.so", layer="Local", defines={**size.local(ranks)})
        with Network(shape) as network:
            axes = {"node": shape.nodes, "gpu": shape.ranks}
            measured = run(network, links.on_a_rank, mesh=axes, **timed)[0]
            show_links(measured)
            calls = run(
                network,
                compare.on_a_rank,
                size=asdict(size),
                local=str(local),
                rounds=options.rounds,
                **timed,
            )
    show_layer(compare.summary(calls))
    result = {
        "machine": machine.describe(),
        "shape": asdict(shape),
        "size": asdict(size),
        "links": measured,
        "calls": calls,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"Written: {options.out}")


if __name__ == "__main__":
    main()
