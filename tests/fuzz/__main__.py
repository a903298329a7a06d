"""`python -m tests.fuzz`: random layers, one after the other; prints the file of each, and what is wrong with it.

What follows a file as a comment is how its layer is tried.  A layer is the same whenever its seed and its number are.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

from tests.emulated import everywhere
from tests.fuzz.choices import Choices, Script, simplest
from tests.fuzz.layers import sample
from tests.fuzz.trial import run
from tests.once import share

PATIENCE = 600
"""Seconds until a layer counts as one that hangs."""
TRIES = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="decides which layers (0)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the number of the first (0)")
    parser.add_argument("--layers", type=int, default=100, metavar="N", help="how many (100)")
    parser.add_argument("--minutes", type=float, default=float("inf"), metavar="N", help="begin none after so long")
    parser.add_argument("--shrink", action="store_true", help="end at the first fault, with a simple file that has it")
    parser.add_argument("--emulate", action="store_true", help="AVX-512's code where the processor has AVX2 only")
    options = parser.parse_args()
    with everywhere() if options.emulate else nullcontext():
        _trials(options)


def _trials(options: argparse.Namespace) -> None:
    end = time.monotonic() + 60 * options.minutes
    tally: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        share(Path(folder))
        _try(options, end, tally)
    print(dict(tally))
    sys.exit(bool(tally["wrong"]))


def _try(options: argparse.Namespace, end: float, tally: Counter[str]) -> None:
    for number in range(options.first, options.first + options.layers):
        if time.monotonic() > end:
            break
        choices = Choices(random.Random(f"{options.seed} {number}"))
        if not _right(f"seed {options.seed}, number {number}", choices, tally) and options.shrink:
            simplest(choices.script, _fails, TRIES)
            break


def _fails(script: Script) -> bool:
    return not _right("simpler", Choices(script), Counter())


def _right(name: str, choices: Choices, tally: Counter[str]) -> bool:
    drawn = sample(choices)
    print(f"--- {name}{drawn!r}", flush=True)  # before it ends the process
    begin = time.process_time()
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    found = "right"
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = "right" if run(drawn, Path(folder)) else "refused"
    except Exception:  # noqa: BLE001 - whatever it is, it is a fault
        print(f"WRONG\n{traceback.format_exc()}")
        found = "wrong"
    finally:
        faulthandler.cancel_dump_traceback_later()
    tally[found] += 1
    print(f"{time.process_time() - begin:.1f} s, {dict(tally)}", flush=True)
    return found != "wrong"


if __name__ == "__main__":
    faulthandler.enable()
    main()
