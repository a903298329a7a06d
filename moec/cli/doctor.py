"""`moec doctor`: what this machine has of what moec needs."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import typer

OLDEST_PYTHON = (3, 11)
CPU_FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16")


@dataclass(frozen=True)
class Finding:
    """One line of the report. `fix` says what to do where `found` does not suffice."""

    what: str
    found: str
    needed_for: str
    fix: str = ""


def _python() -> Finding:
    fix = "" if sys.version_info >= OLDEST_PYTHON else "install Python 3.11 or newer"
    return Finding("Python", platform.python_version(), "everything", fix)


def _package(distribution: str, needed_for: str, fix: str) -> Finding:
    try:
        return Finding(distribution, metadata.version(distribution), needed_for)
    except metadata.PackageNotFoundError:
        return Finding(distribution, "missing", needed_for, fix)


def _linker() -> Finding:
    from moec.backends.cpu.link import linkers

    linker = next(linkers(), None)
    if linker is None:
        fix = "install binutils or a C compiler, or: pip install 'moec[linker]'"
        return Finding("linker", "missing", "compiling", fix)
    return Finding("linker", " ".join(linker.command), "compiling")


def _cuda_compiler() -> Finding:
    from moec.backends.cuda.toolchain import find

    compiler = find()
    return Finding("CUDA compiler", compiler.name if compiler else "none", "compiling for CUDA devices")


def _hardware_tools() -> Finding:
    """What writes the SystemVerilog of hardware projects, and what simulates them."""
    found = [name for name in ("circt", "hls4ml") if find_spec(name) is not None]
    found += [name for name in ("g++", "verilator") if shutil.which(name) is not None]
    return Finding("FPGA tools", ", ".join(found) or "none", "writing and simulating hardware projects")


def _processor() -> Finding:
    model, features = platform.processor() or platform.machine(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        model = fields.get("model name", model)
        features = " ".join(name for name in CPU_FEATURES if name in fields.get("flags", "").split())
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("processor", f"{model}, {threads} threads {features}".strip(), "running")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Finding("memory", f"{total:.0f} GiB", "running")


def examine() -> list[Finding]:
    """Everything that `moec doctor` looks at, in the order that it prints."""
    base, compiler = "pip install moec", "pip install 'moec[compiler]'"
    return [
        _python(),
        _package("torch", "running", base),
        _package("numpy", "running", base),
        _package("apache-tvm-ffi", "running", base),
        _package("torch-mlir", "compiling", compiler),
        _package("lark", "compiling", compiler),
        _linker(),
        _cuda_compiler(),
        _hardware_tools(),
        _processor(),
        _memory(),
    ]


def command() -> None:
    """Tell what this machine has of what moec needs, and how to get the rest."""
    from rich.table import Table

    from moec.cli.console import output_console

    findings = examine()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "what", "found", "needed for", "what to do"):
        table.add_column(heading)
    for finding in findings:
        mark = "[red]✗[/red]" if finding.fix else "[green]✓[/green]"
        table.add_row(mark, finding.what, finding.found, finding.needed_for, finding.fix.replace("[", "\\["))
    output_console().print(table)
    if any(finding.fix for finding in findings):
        raise typer.Exit(1)
