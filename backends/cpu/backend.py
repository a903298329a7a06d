"""The CPU backend as the rest of the compiler sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from torch_mlir import ir

from moec.artifact import manifest
from moec.backends.base import Library
from moec.backends.cpu import codegen, entry, isa, layer, link, packed_form, parts, sharing, threads
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.isa import Variant
from moec.backends.cpu.lender import Lender
from moec.backends.objects import Known
from moec.diagnostics import Diagnostic, Fix, Severity
from moec.dialect.functions import Routed, routed
from moec.errors import DiagnosticError


@dataclass(frozen=True)
class CpuBackend:
    """Kernel-level modules to a shared library for this machine's architecture, one code path a variant."""

    name: str = "cpu"

    @classmethod
    def of(cls, option: str | None) -> Self:
        """The backend; the target `cpu` has no options, as the processor is chosen when an artifact is loaded."""
        if option is not None:
            said = f"the target `cpu` has no options, so `cpu:{option}` is none"
            fix = Fix("write `--target cpu`; the best code path is chosen when the artifact is loaded")
            raise DiagnosticError([Diagnostic("E0702", Severity.ERROR, said, (), (), fix)])
        return cls()

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
        lowered, _ = kernels(module, self.variants(module))
        if stage == "llvm":
            codegen.lower_to_llvm(lowered)
        return str(lowered)

    def compile(
        self,
        module: ir.Module,
        variants: Sequence[str] | None = None,
        known: Known | None = None,
        lender: ir.Module | None = None,
    ) -> Library:
        """The shared library.  Raises Unsupported for what cannot be compiled, ToolchainError without a linker.

        lender: the kernel-level module of a layer whose packed weights this one can take over where they are the same
        """
        objects, described = self.object_files(module, variants, known, lender)
        return Library(link.link(objects), described)

    def object_files(
        self,
        module: ir.Module,
        variants: Sequence[str] | None = None,
        known: Known | None = None,
        lender: ir.Module | None = None,
    ) -> tuple[Sequence[bytes], tuple[manifest.Variant, ...]]:
        """What `compile` links, and what is to be said of the variants."""
        chosen = [v for v in self.variants(module) if variants is None or v.name in variants]
        if known is not None:
            base, described = _emitted(module, chosen, lender)
            return parts.object_files(base.module, known, base.written_later), described
        made, described = kernels(module, chosen, lender)
        codegen.lower_to_llvm(made)
        return [codegen.object_file(made)], described


def kernels(
    module: ir.Module, variants: Sequence[Variant], lender: ir.Module | None = None, *, whole: bool = False
) -> tuple[ir.Module, tuple[manifest.Variant, ...]]:
    """The code of a kernel-level module for some variants, at the level of vectors, and what is to be said of them.

    whole: each variant has all of its code, as it has it alone; else they share what is the same
    """
    base, described = _emitted(module, variants, lender)
    made = base.module
    with made.context, ir.Location.unknown():
        for one in base.written_later.values():
            one.write()
        if not whole:
            sharing.share(made, variants)
        made.operation.verify()
    return made, described


def _emitted(
    module: ir.Module, variants: Sequence[Variant], lender: ir.Module | None
) -> tuple[Builder, tuple[manifest.Variant, ...]]:
    """A builder of the module of `kernels`, in which some functions are still to be written."""
    with module.context, ir.Location.unknown():
        prepared, functions = layer.prepare(module)
        base = Builder(ir.Module.create(ir.Location.unknown()), isa.host_variants()[-1])
        compiled = []
        lent, lends = layer.prepare(lender) if lender is not None else (None, ())
        for function in functions:
            plans = [layer.plan(function, variant, _lender(lends, function, variant)) for variant in variants]
            runs = [threads.run_function(base.for_variant(plan.frame.variant), plan) for plan in plans]
            compiled.append(entry.Compiled(function, plans, runs))
        entry.export(base, compiled)
        described = tuple(_described(compiled[0].layer, plan, routed(prepared)) for plan in compiled[0].plans)
        del prepared, lent
        return base, described


def _described(itself: layer.Layer, plan: layer.Plan, experts: Routed | None) -> manifest.Variant:
    variant = plan.frame.variant
    regions = packed_form.expert_regions(itself, plan, experts)
    adoption = plan.adoption.described if plan.adoption is not None else None
    return manifest.Variant(variant.name, variant.features, packed_form.digest(itself, plan), regions, adoption)


def _lender(lends: Sequence[layer.Layer], function: layer.Layer, variant: Variant) -> Lender | None:
    """The packed weights of the first of some functions, for another."""
    if not lends or function.plain:
        return None
    return packed_form.lender(lends[0], layer.plan(lends[0], variant), function)


def compile_object(module: ir.Module, variants: Sequence[Variant] | None = None) -> bytes:
    """The object file of a kernel-level module."""
    made, _ = kernels(module, isa.host_variants() if variants is None else variants)
    codegen.lower_to_llvm(made)
    return codegen.object_file(made)
