"""Canonical form: constants folded and shared, dead and repeated operations gone."""

from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir
from torch_mlir.passmanager import PassManager

from moec.passes.base import Pass, Remarks


@dataclass(frozen=True)
class Canonicalize(Pass):
    """MLIR's canonicaliser and common-subexpression elimination; `moe` operations without users are dead too."""

    name: ClassVar[str] = "canonicalize"

    def apply(self, module: ir.Module, remarks: Remarks) -> None:
        with module.context:
            PassManager.parse("builtin.module(canonicalize,cse)").run(module.operation)
