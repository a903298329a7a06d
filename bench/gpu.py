"""Checks and measures moec's CUDA artifacts on this machine's GPU: `python bench/gpu.py`.

Every artifact is checked against float64 on fresh random values, with poisoned results and workspaces, under
compute-sanitizer once where that is installed; then it is timed beside a loop over experts, torch._grouped_mm and a
fused Triton layer, with the device's measured ceilings.

A GPU machine without a compiler runs artifacts from another: `python bench/gpu.py --compile-only --artifacts FOLDER`
there, FOLDER carried here, `python bench/gpu.py --artifacts FOLDER` here.  That needs this folder, torch and moec's
runtime.

`python bench/gpu.py --search` times tiles instead, and writes the fastest where the compiler looks for them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from bench.cuda import artifact, ceilings, checks, measure, sanitizer, table  # noqa: E402
from bench.cuda.shapes import CHECKED, SHAPES  # noqa: E402


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=Path, default=ROOT / "build" / "gpu", help="folder of the artifacts")
    parser.add_argument("--compile-only", action="store_true", help="compile the artifacts and end")
    parser.add_argument("--check-only", action="store_true", help="measure nothing")
    parser.add_argument("--small", action="store_true", help="check small layers only")
    parser.add_argument("--no-sanitizer", action="store_true")
    parser.add_argument("--search", action="store_true", help="look for the fastest tiles, write them down and end")
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    missing = [shape for shape in CHECKED.values() if not (options.artifacts / f"{shape.name}.so").exists()]
    if (missing and not options.search) or options.compile_only:
        artifact.compile_all(CHECKED.values() if options.compile_only else missing, options.artifacts)
    if options.compile_only:
        return 0
    if not torch.cuda.is_available():
        print("torch finds no CUDA device on this machine; nothing was checked or measured", file=sys.stderr)
        return 2
    major, minor = torch.cuda.get_device_capability()
    print(f"# {torch.cuda.get_device_name()}, compute capability {major}.{minor}, torch {torch.__version__}\n")
    if options.search:
        return _search()
    wrong = checks.check_all(options.artifacts, options.small)
    if not options.no_sanitizer:
        program = sanitizer.find()
        arguments = ["--artifacts", str(options.artifacts), "--check-only", "--small", "--no-sanitizer"]
        if program is None:
            print("compute-sanitizer is not installed: not run")
        else:
            wrong += sanitizer.run(program, __file__, arguments)
    if not options.check_only:
        _measure(options.artifacts)
    return 1 if wrong else 0


def _search() -> int:
    from bench.cuda import search  # it needs the compiler, which machines with artifacts alone lack
    from moec.backends.cuda.matmul import measured

    entries = search.search(SHAPES.values(), search.here(), torch.cuda.get_device_name(), search.on_gpu)
    measured.write(measured.FILE, entries)
    print(f"wrote {measured.FILE}: check again before it is kept")
    return 0


def _measure(folder: Path) -> None:
    limits = ceilings.measure()
    print(f"\nceilings: {limits.matmul:.0f} TFLOP/s (bf16 matmul), {limits.copy:.0f} GB/s (copy, read and write)\n")
    print(table.prefill(measure.prefill(folder), limits), "\n", sep="")
    rows, experts = measure.decode(folder)
    print(table.decode(rows, experts, limits))


if __name__ == "__main__":
    sys.exit(main())
