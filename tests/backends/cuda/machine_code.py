"""Cubins as the machine's instructions, by NVIDIA's `nvdisasm`."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

_KERNEL = re.compile(r"\s*\.section\s+\.text\.(\w+)")
_INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][^;]*?)\s*;")


@cache
def disassembler() -> str | None:
    """On PATH, beside CUDA's compiler, or that of the wheel `nvidia-cuda-nvdisasm`."""
    if path := shutil.which("nvdisasm"):
        return path
    found = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin" / "nvdisasm"]
    try:
        wheel = importlib.metadata.distribution("nvidia-cuda-nvdisasm")
        found += [Path(str(wheel.locate_file(file))) for file in wheel.files or () if file.name == "nvdisasm"]
    except importlib.metadata.PackageNotFoundError:
        pass
    return next((str(path) for path in found if os.access(path, os.X_OK)), None)


def instructions(cubin: Path) -> dict[str, list[str]]:
    """The instructions of each kernel in their order, without predicates, such as `HMMA.16816.F32 R4, R8, R12, R4`."""
    tool = disassembler()
    assert tool is not None
    text = subprocess.run([tool, "-c", str(cubin)], check=True, capture_output=True, text=True).stdout
    made: dict[str, list[str]] = {}
    kernel: list[str] = []
    for line in text.splitlines():
        if begin := _KERNEL.match(line):
            kernel = made.setdefault(begin[1], [])
        elif found := _INSTRUCTION.match(line):
            kernel.append(found[1])
    return made
