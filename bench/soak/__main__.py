"""`python -m bench.soak`: latencies with recompilation beside those without, in windows of one run, under fire."""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path

from bench import machine
from bench.soak.layers import FORCED, SERVICE
from bench.soak.report import QUANTILES, Paired, Report
from bench.soak.soak import PAUSE, Soak
from moec.errors import DiagnosticError

LARGEST_RATIO = 1.2
MIB = 2**20


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument(
        "--service",
        choices=SERVICE,
        help="compile what the policy of this layer finds worth it, as for users, not all the time",
    )
    parser.add_argument("--variants", action="store_true", help="compile variants ahead, into the artifact")
    parser.add_argument("--same", action="store_true", help="recompile in no window, to see how much they differ")
    parser.add_argument("--window", type=float, help="seconds of a window; 5 by default, 45 in service")
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1, help="of each call")
    parser.add_argument("--strike", type=float, default=6.0, help="mean seconds between two strikes at the compiler")
    parser.add_argument("--pause", type=float, default=PAUSE, help="seconds between two considerations to recompile")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("bench/results/soak.json"))
    return parser.parse_args()


def show(report: Report) -> None:
    on, off, ratios, paired = report.latencies("on"), report.latencies("off"), report.ratios(), report.paired()
    counts = {state: report.counts(state) for state in ("on", "off")}
    for tokens, ratio in ratios.items():
        print(f"T = {tokens}, {counts['on'][tokens]} calls with recompilation, {counts['off'][tokens]} without:")
        rows = zip(QUANTILES, on[tokens], off[tokens], ratio, paired[tokens], strict=True)
        for quantile, with_it, without, share, pairs in rows:
            verdict = "met" if share <= LARGEST_RATIO else "missed"
            print(f"  p{100 * quantile:g}: {with_it:.3f} / {without:.3f} ms: {share:.2f} ({verdict}{_told(pairs)})")
    calls = {state: sum(found) for state, found in report.calls.items()}
    print(f"calls {calls}{_told(report.paired_calls())}, faults {len(report.faults)}, most variants {report.variants}")
    print(f"events {dict(report.events)}, strikes {dict(report.strikes)}")
    for tokens, ran in sorted(report.ran.items()):
        print(f"T = {tokens}: variants ran {ran['variants'] / ran.total():.0%} of the calls with recompilation")
    for one in report.happened:
        if one.name is not None:
            print(f"  pair {one.pair}, {one.seconds:.1f} s: {one.what} {one.name}{f': {one.why}' if one.why else ''}")
    resident = [one.resident // MIB for one in report.footprints]
    print(f"resident MiB {resident}, growth {report.growth() if len(resident) > 2 else None}")
    for fault in report.faults[:20]:
        print(f"fault: {fault}")


def _told(pairs: Paired | None) -> str:
    return "" if pairs is None else f"; pair by pair {pairs.mean:.2f} ± {pairs.error:.2f} of {pairs.pairs}"


def main() -> None:
    options = parse_arguments()
    logging.getLogger("moec.adapt").setLevel(logging.ERROR)  # what is killed here is reported in the end
    with tempfile.TemporaryDirectory(prefix="moec-soak-") as folder:
        try:
            soak = Soak(
                Path(folder),
                SERVICE[options.service] if options.service else FORCED,
                options.callers,
                options.threads,
                options.strike,
                options.pause,
                options.seed,
                service=options.service is not None,
                ahead=options.variants,
                recompiling=not options.same,
            )
        except DiagnosticError as error:
            raise SystemExit(f"this layer has no variants that can be compiled ahead:\n{error}") from None
        window = options.window or (45.0 if options.service else 5.0)
        try:
            report = soak.run(max(1, round(options.minutes * 60 / (2 * window))), window)
        finally:
            soak.close()
    show(report)
    result = {
        "machine": machine.describe(),
        "options": {name: str(value) for name, value in vars(options).items()},
        "latencies": {state: report.latencies(state) for state in ("on", "off")},
        "ratios": report.ratios(),
        "paired": {t: [one and vars(one) for one in pairs] for t, pairs in report.paired().items()},
        "paired_calls": vars(report.paired_calls()),
        "counts": {state: report.counts(state) for state in ("on", "off")},
        "calls": report.calls,
        "events": report.events,
        "strikes": report.strikes,
        "happened": [vars(one) for one in report.happened],
        "ran": report.ran,
        "variants": report.variants,
        "footprints": [vars(one) for one in report.footprints],
        "faults": report.faults,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"Written: {options.out}")


if __name__ == "__main__":
    main()
