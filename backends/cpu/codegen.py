"""From a module in the `arith`, `scf`, `vector` and `llvm` dialects to an object file."""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path

from torch_mlir import ir
from torch_mlir.execution_engine import ExecutionEngine
from torch_mlir.passmanager import PassManager

LOWERING = "convert-scf-to-cf,convert-to-llvm"


def lower_to_llvm(module: ir.Module) -> None:
    """In place: every operation becomes one of the LLVM dialect.  Raises ir.MLIRError where one cannot."""
    passes = PassManager.parse(f"builtin.module({LOWERING})", context=module.context)
    passes.enable_verifier(False)  # once, at the end
    passes.run(module.operation)
    _annotate_loops(module)
    module.operation.verify()


def _annotate_loops(module: ir.Module) -> None:
    """Loop annotations arrive on branches under a name that the translation to LLVM IR does not read."""

    def rename(operation: ir.Operation) -> ir.WalkResult:
        if operation.name == "llvm.br" and "llvm.loop_annotation" in operation.attributes:
            operation.attributes["loop_annotation"] = operation.attributes["llvm.loop_annotation"]
            del operation.attributes["llvm.loop_annotation"]
        return ir.WalkResult.ADVANCE

    module.operation.walk(rename)


def object_file(module: ir.Module) -> bytes:
    """Machine code for a module in the LLVM dialect: a relocatable, position-independent ELF object.

    Functions compile for the target that they name.  The engine adds a wrapper `_mlir_NAME` for every external
    function; linking hides it.
    """
    symbols = [op.operation for op in module.body.operations if "sym_name" in op.attributes]
    shown = [op.attributes["sym_name"].value for op in symbols if _defined(op) and not _internal(op)]
    if not shown:
        raise ValueError("the module defines no external function or constant")
    with tempfile.TemporaryDirectory(prefix="moec-") as folder:
        path = Path(folder) / "layer.o"
        engine = ExecutionEngine(module, opt_level=3, enable_object_dump=True, enable_pic=True)
        # The engine makes code when it is first asked for an address, for which it resolves every symbol.  Nothing of
        # this is run, so whatever address will do for those that only the process that loads the artifact has.
        for op in symbols:
            if not _defined(op):
                engine.raw_register_runtime(op.attributes["sym_name"].value, ctypes.c_void_p(1))
        engine.raw_lookup(shown[0])
        engine.dump_to_object_file(str(path))
        return path.read_bytes()


def _internal(op: ir.Operation) -> bool:
    return "linkage" in op.attributes and "internal" in str(op.attributes["linkage"])


def _defined(op: ir.Operation) -> bool:
    """Whether a function or a global has a body or a value here."""
    return bool(op.regions[0].blocks) or "value" in op.attributes
