"""`python -m bench.drift`: throughput while traffic drifts: with recompilation, without, and at best."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench import machine
from bench.drift import capacity, memory, tokens

SCENARIOS = {"tokens": tokens.scenario, "memory": memory.scenario, "capacity": capacity.scenario}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.drift", description=__doc__)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--seconds", type=float, default=10.0, help="of each phase")
    parser.add_argument("--priority", choices=machine.PRIORITIES, default="normal", help="of the timed parts")
    parser.add_argument("--lock", type=Path, help="a file that others lock too, so that one at a time is timed")
    parser.add_argument("--folder", type=Path, help="for artifacts and for weights on disk; default: a temporary one")
    parser.add_argument("--out", type=Path, default=Path("bench/results/drift.json"))
    return parser.parse_args()


def shown_tokens(found: Mapping[str, Any]) -> None:
    phases = found["phases"]
    whole = {mode: sum(phase[mode] for phase in phases) for mode in tokens.MODES}
    for name, taken in (*((f"phase {i}", phase) for i, phase in enumerate(phases)), ("all", whole)):
        gain, best = taken["still"] / taken["following"], taken["told"] / taken["following"]
        print(f"tokens, {name}: {gain:.3f} times as fast as without recompilation, {best:.1%} of the oracle")


def shown_memory(found: Mapping[str, Any]) -> None:
    for name, modes in found["traffics"].items():
        rate = {mode: modes[mode]["tokens_per_second"] for mode in memory.MODES}
        print(
            f"memory, {name}: "
            + ", ".join(f"{mode} {value:,.0f} ({modes[mode]['held']:.0%} held)" for mode, value in rate.items())
            + f" tokens/s; {rate['following'] / rate['fixed']:.1f} times the fixed set, "
            f"{rate['following'] / rate['told']:.1%} of told, {rate['following'] / rate['placed']:.1%} of placed"
        )


def shown_capacity(found: Mapping[str, Any]) -> None:
    print(f"capacity: padded layers multiply in {found['padded_in']}")
    best = found["modes"]["moec_worst"]["kept_per_second"]
    for name, mode in found["modes"].items():
        rate = mode["kept_per_second"]
        kept = sum(mode["kept"]) / len(mode["kept"])
        told = " ".join(f"{one:.1f}" for one in mode["milliseconds"])
        print(
            f"capacity, {name}: {told} ms, {kept:.1%} kept, {rate:,.0f} kept tokens/s; moec_worst is {best / rate:.2f}"
        )
    following = {name: value for name, value in found["adapting"].items() if name != "decisions"}
    print(f"capacity, moec_adapting: {following}")


SHOWN = {"tokens": shown_tokens, "memory": shown_memory, "capacity": shown_capacity}


def main() -> None:
    options = parse_arguments()
    found: dict[str, Any] = {"machine": machine.describe(), "seconds": options.seconds}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name in options.scenarios:
        starving = name == "memory" and options.priority == "realtime"
        quiet = partial(machine.quiet, "raised" if starving else options.priority, options.lock)
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="moec-drift-") as folder:
            found[name] = SCENARIOS[name](Path(folder), options.seconds, quiet)
        SHOWN[name](found[name])
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"Written: {options.out}")


if __name__ == "__main__":
    main()
