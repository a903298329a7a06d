"""Checks and measures moec's CUDA artifacts on this machine's GPU: `python bench/gpu.py`.

Every kernel and every layer is checked against float64 on fresh random values, with poisoned results and workspaces,
and under compute-sanitizer where that is installed; layers are timed beside a loop over experts, torch._grouped_mm and
a fused Triton layer, with the device's measured ceilings.

What tells most comes first, and is written to a file when it is found.  A task that hangs or fails is named, and the
others still run; a run that was killed goes on where it was when it is started again.

A GPU machine without a compiler runs artifacts from another: `python bench/gpu.py --compile-only --artifacts FOLDER`
there, FOLDER carried here, `python bench/gpu.py --artifacts FOLDER` here.  That needs this folder, torch and moec's
runtime.

`python bench/gpu.py --search` times tiles instead, and writes the fastest where the compiler looks for them; it goes on
where it was, too.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from bench.cuda import artifact, table  # noqa: E402
from bench.cuda.results import Results  # noqa: E402
from bench.cuda.shapes import SHAPES, Shape  # noqa: E402
from bench.cuda.supervisor import Supervisor  # noqa: E402
from bench.cuda.tasks import Task, tasks  # noqa: E402
from moec.errors import MoecError  # noqa: E402


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=Path, default=ROOT / "build" / "gpu", help="folder of the artifacts")
    parser.add_argument("--target", default=artifact.TARGET, help="what artifacts are compiled for")
    parser.add_argument("--compile-only", action="store_true", help="compile the artifacts and end")
    parser.add_argument("--only", nargs="+", metavar="TASK", help="tasks such as kernels/Small/random or 'prefill/*'")
    parser.add_argument("--skip", nargs="+", metavar="TASK", default=[], help="tasks to leave out")
    parser.add_argument("--seconds", type=float, help="begin nothing more, and end what runs, after so many")
    parser.add_argument("--results", type=Path, help="file of the results; in the artifacts' folder")
    parser.add_argument("--again", action="store_true", help="do again what the file has the result of")
    parser.add_argument("--list", action="store_true", help="name the tasks in order and end")
    parser.add_argument("--report", metavar="DEVICE", help="print the tables of a device's results and end")
    parser.add_argument("--search", action="store_true", help="look for the fastest tiles, write them down and end")
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    began = time.monotonic()
    results = Results((options.results or options.artifacts / "results.jsonl").resolve())
    every = tasks()
    wanted = [name for name in every if _fits(name, options.only) and not (options.skip and _fits(name, options.skip))]
    if not wanted:
        print("no task fits `--only` and `--skip`; `--list` names all", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(wanted))
        return 0
    if options.report:
        _print_tables(results, options.report)
        return 0
    folder = options.artifacts.resolve()
    lacking = {} if options.search else _compile([every[name] for name in wanted], folder, options)
    if options.compile_only:
        return 1 if lacking else 0
    if not torch.cuda.is_available():
        print("torch finds no CUDA device on this machine; nothing was checked or measured", file=sys.stderr)
        return 2
    major, minor = torch.cuda.get_device_capability()
    device = torch.cuda.get_device_name()
    print(f"# {device}, compute capability {major}.{minor}, torch {torch.__version__}\n", flush=True)
    if options.search:
        times = Results(options.results.resolve() if options.results else folder / "search.jsonl")
        return _search(device, times, None if options.seconds is None else began + options.seconds, options.again)
    possible = [name for name in wanted if not any(shape.name in lacking for shape in every[name].shapes)]
    until = None if options.seconds is None else began + options.seconds
    left = _run(possible, every, folder, results, device, until, options.again)
    _print_tables(results, device)
    over = results.over(device, {name: artifact.digest(folder, every[name].shapes) for name in wanted})
    wrong = [name for name in wanted if over.get(name) is False]
    absent = [name for name in wanted if name not in possible]
    for text, names in (("wrong or failed", wrong), ("not reached", left), ("without an artifact", absent)):
        if names:
            print(f"\n{text}: {', '.join(names)}")
    return 1 if wrong or left or absent else 0


def _fits(name: str, patterns: Sequence[str] | None) -> bool:
    return patterns is None or any(fnmatch(name, pattern) for pattern in patterns)


def _compile(wanted: Sequence[Task], folder: Path, options: argparse.Namespace) -> Mapping[str, str]:
    """Compiles the artifacts that are not there yet, or all with `--compile-only`; why some could not be, by shape."""
    lacking: dict[str, str] = {}
    for shape in dict.fromkeys(shape for task in wanted for shape in task.shapes):
        if (folder / f"{shape.name}.so").exists() and not options.compile_only:
            continue
        try:
            artifact.compile_all([shape], folder, options.target)
        except (ImportError, MoecError) as why:
            lacking[shape.name] = str(why)
            print(f"there is no artifact {shape.name}.so, and it cannot be compiled here: {why}", file=sys.stderr)
    return lacking


def _run(
    names: Sequence[str],
    every: Mapping[str, Task],
    folder: Path,
    results: Results,
    device: str,
    until: float | None,
    again: bool,
) -> list[str]:
    """Runs tasks that have no result yet; those that are left over."""
    over = results.over(device, {name: artifact.digest(folder, every[name].shapes) for name in names})
    todo = [name for name in names if again or name not in over]
    if len(todo) < len(names):
        print(f"{len(names) - len(todo)} of {len(names)} tasks are in {results.path} already")
    supervisor = Supervisor(
        results,
        lambda left: [sys.executable, "-m", "bench.cuda.worker", str(folder), str(results.path), device, *left],
        {name: every[name].seconds for name in names},
        ROOT,
        lambda line: print(line, flush=True),
    )
    return supervisor.run(todo, until)


def _search(device: str, times: Results, until: float | None, again: bool) -> int:
    from bench.cuda import search  # it needs the compiler, which machines with artifacts alone lack
    from moec.backends.cuda.matmul import measured

    shapes: Sequence[Shape] = tuple(SHAPES.values())
    seconds = search.remembered(search.on_gpu, times, until, again)
    try:
        for entries in search.search(shapes, search.here(), device, seconds):
            measured.write(measured.FILE, entries)
    except search.OutOfTime:
        print(f"there are tiles left: start it again, it goes on behind what {times.path} has")
        return 1
    print(f"wrote {measured.FILE}: check again before it is kept")
    return 0


def _print_tables(results: Results, device: str) -> None:
    found, limits = results.measured(device)
    calls = [(one.measured, one.experts) for one in found if one.measured is not None]
    large = [call for call, experts in calls if experts is None]
    few = [(call, experts) for call, experts in calls if experts is not None]
    print(f"\n{device}, ceilings: {limits.matmul:.0f} TFLOP/s (bf16 matmul), {limits.copy:.0f} GB/s (copy)\n")
    if large:
        print(table.prefill(large, limits), "\n", sep="")
    if few:
        print(table.decode([call for call, _ in few], [experts for _, experts in few], limits))


if __name__ == "__main__":
    sys.exit(main())
