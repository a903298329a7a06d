"""The CUDA backend as the rest of the compiler sees it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from torch_mlir import ir

from moec.artifact.cuda import Architecture, Cuda, Stack
from moec.backends.base import Library
from moec.backends.cpu import codegen, isa, link
from moec.backends.cpu.backend import CpuBackend
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.isa import Variant
from moec.backends.cuda import entry, toolchain
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.bundle import Bundle, bundles
from moec.backends.cuda.record import MEMBER, record
from moec.backends.cuda.source import Source, sources
from moec.backends.cuda.targets import architectures
from moec.backends.objects import Known


@dataclass(frozen=True)
class CudaBackend:
    """Kernel-level modules to a shared library with code for CUDA devices, and for the CPU as the CPU backend makes it.

    compiler  makes the cubins; by default what this machine has
    """

    archs: tuple[Arch, ...]
    compiler: toolchain.Compiler | None = None
    name: str = "cuda"

    @classmethod
    def of(cls, option: str | None) -> Self:
        """The backend for the architectures that `option` lists.  Raises DiagnosticError (E0710) for another."""
        return cls(architectures(option))

    def variants(self, module: ir.Module) -> tuple[Variant, ...]:
        """Those of the CPU: what runs on a device is chosen when it is opened."""
        return CpuBackend().variants(module)

    def stages(self) -> tuple[str, ...]:
        """`cuda`: CUDA C++, every different text once."""
        return ("cuda",)

    def lower(self, module: ir.Module, stage: str) -> str:
        """The text of a stage.  Raises Unsupported for what cannot be compiled, KeyError for an unknown stage."""
        if stage not in self.stages():
            raise KeyError(stage)
        with module.context, ir.Location.unknown():
            return "\n".join(source.text for source in sources(bundles(module, self.archs)))

    def compile(self, module: ir.Module, variants: Sequence[str] | None = None, known: Known | None = None) -> Library:
        """The shared library.  Raises Unsupported for what cannot be compiled, DiagnosticError (E0711) where there is
        no CUDA compiler and (E0712) where it fails, ToolchainError without a linker."""
        compiler = self.compiler or toolchain.require()
        with module.context, ir.Location.unknown():
            made_for = bundles(module, self.archs)
            texts = sources(made_for)
            made = ir.Module.create(ir.Location.unknown())
            entry.export(Builder(made, isa.host_variants()[-1]), made_for, _images(texts, made_for, compiler))
            codegen.lower_to_llvm(made)
            ours = codegen.object_file(made)
            cuda = _described(made_for)
            described_kernels = record(made_for)
        objects, described = CpuBackend().object_files(module, variants, known)
        members = {f"cuda/{_label(source, made_for)}.cu": source.text for source in texts}
        members[MEMBER] = described_kernels
        return Library(link.link([*objects, ours]), described, cuda, members)


def _images(texts: Sequence[Source], made_for: Sequence[Bundle], compiler: toolchain.Compiler) -> list[bytes]:
    """The bundles' cubins; compilers run side by side."""
    text_of = {number: source.text for source in texts for number in source.bundles}
    with ThreadPoolExecutor(max(1, len(made_for))) as pool:
        made = [pool.submit(compiler.compile, text_of[n], one.arch) for n, one in enumerate(made_for)]
        return [one.result() for one in made]


def _label(source: Source, made_for: Sequence[Bundle]) -> str:
    return "-".join(made_for[number].arch.name for number in source.bundles)


def _described(made_for: Sequence[Bundle]) -> Cuda:
    archs = (bundle.arch for bundle in made_for)
    programs = made_for[0].programs
    # Kernels for few tokens add up in another order than those for many.
    by_tokens = any(kernel.tokens != (0, None) for bundle in made_for for kernel in bundle.kernels)
    return Cuda(
        tuple(Architecture(arch.name, arch.capability, arch.exact) for arch in archs),
        tuple(map(Stack, programs[0].stacks)),
        deterministic=True,
        batch_invariant=not by_tokens,
        training=len(programs) > 1,
    )
