"""One run of the checks under NVIDIA's compute-sanitizer, where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.cuda.results import Found

TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
SECONDS = 300.0
"""Of one tool, under which kernels take ten to a hundred times as long."""
_FOUND_SOMETHING = 86
_SHOWN = 4000


def find() -> str | None:
    """The program, on PATH or of the CUDA toolkit."""
    if path := shutil.which("compute-sanitizer"):
        return path
    candidate = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin" / "compute-sanitizer"
    return str(candidate) if os.access(candidate, os.X_OK) else None


def run(tool: str, folder: Path, tasks: Sequence[str]) -> Iterator[Found]:
    """Does tasks under a tool, and says whether it found something."""
    program = find()
    if program is None:
        yield Found(f"compute-sanitizer is not installed: {tool} not run")
        return
    # torch's caching allocator would hide what lies outside of a tensor.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        worker = [sys.executable, "-m", "bench.cuda.worker", str(folder), f"{scratch}/results", tool, *tasks]
        done = subprocess.run(
            [*command(program, tool), *worker], env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode == 0:
        yield Found(f"ok     compute-sanitizer {tool}: nothing found")
        return
    what = "FOUND SOMETHING" if done.returncode == _FOUND_SOMETHING else f"exit status {done.returncode}"
    yield Found(f"WRONG  compute-sanitizer {tool}: {what}\n{(done.stdout + done.stderr)[-_SHOWN:]}", sound=False)


def command(program: str, tool: str) -> list[str]:
    """Its command line in front of a program's."""
    # PyTorch asks for functions that a driver may lack and looks at the answer itself.
    quiet = ["--report-api-errors=no"] if tool == "memcheck" else []
    return [program, f"--tool={tool}", *quiet, f"--error-exitcode={_FOUND_SOMETHING}"]
