"""One run of the checks under NVIDIA's compute-sanitizer, where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
_FOUND_SOMETHING = 86


def find() -> str | None:
    """The program, on PATH or of the CUDA toolkit."""
    if path := shutil.which("compute-sanitizer"):
        return path
    candidate = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin" / "compute-sanitizer"
    return str(candidate) if os.access(candidate, os.X_OK) else None


def run(program: str, script: str, arguments: Sequence[str]) -> int:
    """Runs a script under every tool; how many found something."""
    failed = 0
    # torch's caching allocator would hide what lies outside of a tensor.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    for tool in TOOLS:
        command = [
            program,
            f"--tool={tool}",
            f"--error-exitcode={_FOUND_SOMETHING}",
            sys.executable,
            script,
            *arguments,
        ]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        print(f"compute-sanitizer {tool}: {'nothing found' if done.returncode == 0 else 'FOUND SOMETHING'}", flush=True)
        if done.returncode:
            print((done.stdout + done.stderr)[-4000:])
            failed += 1
    return failed
