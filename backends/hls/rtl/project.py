"""The project's folder rtl/: the tile, the library that runs it, and what builds both."""

from __future__ import annotations

from importlib.util import find_spec

from moec.backends.hls.rtl.bench import files as bench_files
from moec.backends.hls.rtl.tile import tile
from moec.diagnostics import Diagnostic, Fix, Severity
from moec.errors import DiagnosticError
from moec.fixed.design import Design
from moec.fixed.verilated import FOLDER, TILE


def files(design: Design) -> dict[str, bytes]:
    """The files of rtl/ by their paths in the project.  DiagnosticError where CIRCT is not installed."""
    made = {TILE: systemverilog(design).encode(), **bench_files(design)}
    return {f"{FOLDER}/{name}": made[name] for name in sorted(made)}


def systemverilog(design: Design) -> str:
    """The tile of a design.  DiagnosticError where CIRCT is not installed."""
    if find_spec("circt") is None:
        said = "the compute tile in SystemVerilog is made by CIRCT, which is not installed"
        fix = Fix("pip install 'moec[hls]', or leave the tile out: --target hls:BOARD,rtl=no")
        raise DiagnosticError([Diagnostic("E0760", Severity.ERROR, said, (), (), fix)])
    from moec.backends.hls.rtl.lower import verilog  # CIRCT is a large library, and not everyone has it

    return verilog(tile(design).modules)
