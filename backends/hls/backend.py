"""The backend for FPGAs: from a graph-level layer to a project's files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from torch_mlir import ir

from moec.backends.base import Project, ProjectBackend
from moec.backends.hls.cpp import project as cpp
from moec.backends.hls.read import read
from moec.backends.hls.report import report
from moec.backends.hls.rtl import project as rtl
from moec.backends.hls.target import TOKENS, Target, read_target
from moec.diagnostics import Diagnostic, Fix, Severity
from moec.dialect.hls import Decisions, decisions, write_decisions
from moec.errors import DiagnosticError
from moec.fixed.design import Design


@dataclass(frozen=True)
class HlsBackend(ProjectBackend):
    """Graph-level modules to projects in HLS C++ and SystemVerilog for one board."""

    target: Target
    name: str = "hls"

    @classmethod
    def of(cls, option: str | None) -> Self:
        """The backend of `hls:OPTION`.  Raises DiagnosticError for a board or an option that there is not."""
        return cls(read_target(option))

    def prepare(self, module: ir.Module) -> None:
        """Write the fixed-point layer and the board into `moe.hls`, unless the module is for this board already."""
        found = self._decided(module)
        if found is None:
            layer = read(module).layer
            write_decisions(module, Decisions(layer, self.target.board, self.target.tokens or TOKENS))
            return
        for what, there, wanted in (
            ("the board", found.board, self.target.board),
            ("tokens", found.tokens, self.target.tokens or found.tokens),
        ):
            if there != wanted:
                said = f"this IR was made for another target: {what} differs"
                raise _error(said, "compile the `.moe` file, or for the target that the IR was made for")

    def pipeline(self) -> Sequence[str]:
        return ("hls-order", "hls-array", "hls-memories")

    def stages(self) -> Sequence[str]:
        """`cpp`: the C++ that is synthesised, one file behind the other; `sv`: the tile in SystemVerilog."""
        return ("cpp", "sv") if self.target.rtl else ("cpp",)

    def lower(self, module: ir.Module, stage: str) -> str:
        """The text of a stage.  Raises Unsupported for what cannot be compiled, KeyError for an unknown stage, and
        DiagnosticError for `sv` without CIRCT.
        """
        if stage not in self.stages():
            raise KeyError(stage)
        if stage == "sv":
            return rtl.systemverilog(self.design(module))
        files = cpp.files(self.design(module), self.target.rtl)
        sources = {path: data for path, data in files.items() if path.startswith("src/")}
        return "\n".join(f"// {path}\n{data.decode()}" for path, data in sources.items())

    def project(self, module: ir.Module, decided: Sequence[str]) -> Project:
        """The project: sources, test bench, scripts, reports.  DiagnosticError for the tile without CIRCT."""
        design = self.design(module)
        made = read(module)
        if made.layer != design.layer:
            raise _error("`moe.hls` is of another layer than its module", "compile the `.moe` file")
        files = cpp.files(design, self.target.rtl) | report(design, decided)
        if self.target.rtl:
            files |= rtl.files(design)
        return Project(design, made.interface, files)

    def design(self, module: ir.Module) -> Design:
        """What the passes decided.  Raises DiagnosticError where they left something open."""
        found = self._decided(module)
        try:
            if found is None:
                raise ValueError("the module has no attribute `moe.hls`")
            return found.design
        except ValueError as why:
            said = f"there is no complete design: {why}"
            raise _error(said, f"run the passes {', '.join(self.pipeline())}") from why

    def _decided(self, module: ir.Module) -> Decisions | None:
        try:
            return decisions(module)
        except ValueError as why:
            raise _error(
                f"the module's attribute `moe.hls` is not well formed: {why}", "compile the `.moe` file"
            ) from why


def _error(said: str, fix: str) -> DiagnosticError:
    return DiagnosticError([Diagnostic("E0747", Severity.ERROR, said, (), (), Fix(fix))])
