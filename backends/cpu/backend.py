"""The CPU backend as the rest of the compiler sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.cpu import codegen, entry, isa, layer, link, sharing, threads
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.isa import Variant


@dataclass(frozen=True)
class CpuBackend:
    """Kernel-level modules to a shared library for this machine's architecture, one code path a variant."""

    name: str = "cpu"

    def variants(self, module: ir.Module) -> tuple[Variant, ...]:
        """The variants of a module's artifact, best first; their places are the numbers that its functions take."""
        operations = [op.operation.name for f in module.body.operations for op in f.regions[0].blocks[0].operations]
        return isa.host_variants(integer_rows="moe.quantize_rows" in operations)

    def stages(self) -> tuple[str, ...]:
        """`cpu`: `arith`, `scf`, `vector` and `llvm`, one function a phase; `llvm`: the LLVM dialect alone."""
        return ("cpu", "llvm")

    def lower(self, module: ir.Module, stage: str) -> str:
        """The text of a stage.  Raises Unsupported for what cannot be compiled, KeyError for an unknown stage."""
        if stage not in self.stages():
            raise KeyError(stage)
        lowered = kernels(module, self.variants(module))
        if stage == "llvm":
            codegen.lower_to_llvm(lowered)
        return str(lowered)

    def compile(self, module: ir.Module) -> bytes:
        """The shared library.  Raises Unsupported for what cannot be compiled, ToolchainError without a linker."""
        return link.link(compile_object(module, self.variants(module)))


def kernels(module: ir.Module, variants: Sequence[Variant]) -> ir.Module:
    """The code of a kernel-level module for some variants, at the level of vectors."""
    with module.context, ir.Location.unknown():
        prepared, functions = layer.prepare(module)
        made = ir.Module.create(ir.Location.unknown())
        base = Builder(made, isa.host_variants()[-1])
        compiled = []
        for function in functions:
            plans = [layer.plan(function, variant) for variant in variants]
            runs = [threads.run_function(base.for_variant(plan.frame.variant), plan) for plan in plans]
            compiled.append(entry.Compiled(function, plans, runs))
        entry.export(base, compiled)
        sharing.share(made, variants)
        del prepared
        made.operation.verify()
        return made


def compile_object(module: ir.Module, variants: Sequence[Variant] | None = None) -> bytes:
    """The object file of a kernel-level module."""
    made = kernels(module, isa.host_variants() if variants is None else variants)
    codegen.lower_to_llvm(made)
    return codegen.object_file(made)
