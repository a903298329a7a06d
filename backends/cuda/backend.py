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
from moec.backends.cpu.layer import prepare
from moec.backends.cuda import entry, toolchain
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.program import Program, program
from moec.backends.cuda.source import Source, sources
from moec.backends.cuda.targets import architectures
from moec.backends.objects import Objects


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
            return "\n".join(source.text for source in sources(self._programs(module)))

    def compile(
        self, module: ir.Module, variants: Sequence[str] | None = None, known: Objects | None = None
    ) -> Library:
        """The shared library.  Raises Unsupported for what cannot be compiled, DiagnosticError (E0711) where there is
        no CUDA compiler and (E0712) where it fails, ToolchainError without a linker."""
        compiler = self.compiler or toolchain.require()
        with module.context, ir.Location.unknown():
            programs = self._programs(module)
            texts = sources(programs)
            images = _images(texts, programs, compiler)
            made = ir.Module.create(ir.Location.unknown())
            entry.export(Builder(made, isa.host_variants()[-1]), programs, images)
            codegen.lower_to_llvm(made)
            ours = codegen.object_file(made)
            cuda = _described(programs)
        objects, described = CpuBackend().object_files(module, variants, known)
        members = {f"cuda/{_label(source, programs)}.cu": source.text for source in texts}
        return Library(link.link([*objects, ours]), described, cuda, members)

    def _programs(self, module: ir.Module) -> tuple[Program, ...]:
        prepared, functions = prepare(module)
        return tuple(program(prepared, functions[0], arch) for arch in self.archs)


def _images(texts: Sequence[Source], programs: Sequence[Program], compiler: toolchain.Compiler) -> list[bytes]:
    """The programs' cubins; compilers run side by side."""
    text_of = {number: source.text for source in texts for number in source.programs}
    with ThreadPoolExecutor(max(1, len(programs))) as pool:
        made = [pool.submit(compiler.compile, text_of[n], one.arch) for n, one in enumerate(programs)]
        return [one.result() for one in made]


def _label(source: Source, programs: Sequence[Program]) -> str:
    return "-".join(programs[number].arch.name for number in source.programs)


def _described(programs: Sequence[Program]) -> Cuda:
    archs = (program.arch for program in programs)
    # Kernels for few tokens add up in another order than those for many.
    by_tokens = any(kernel.tokens != (0, None) for program in programs for kernel in program.kernels)
    return Cuda(
        tuple(Architecture(arch.name, arch.capability, arch.exact) for arch in archs),
        tuple(map(Stack, programs[0].stacks)),
        deterministic=True,
        batch_invariant=not by_tokens,
    )
