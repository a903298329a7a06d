"""The way from a file to an artifact: one `Compilation`, whose stages are made when they are asked for."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_mlir import ir

from moec.artifact import container
from moec.artifact.cuda import Cuda
from moec.artifact.elf import is_library
from moec.artifact.manifest import Manifest, Source, Variant
from moec.backends.base import ProjectBackend
from moec.backends.objects import Objects
from moec.diagnostics import Diagnostic, Fix, Severity, closest
from moec.dialect import context
from moec.dialect.functions import has_training, layer_function
from moec.errors import DiagnosticError
from moec.pipeline import describe, describe_policy, describe_training, ir_text
from moec.pipeline.describe_quantised import quantised
from moec.pipeline.prebuild import Ahead, Wanted, prebuild, worth_compiling
from moec.writing import would_lose

if TYPE_CHECKING:
    from moec.backends.base import Backend
    from moec.passes import Report

FRONT_STAGES = ("graph", "kernels")

Observer = Callable[[str, float], None]
"""Called with a stage's name when it begins, seconds 0, and again when it is done, with the seconds it took."""


def _nobody(stage: str, seconds: float) -> None:
    """The observer that does not look."""


@dataclass
class Compilation:
    """One layer on its way through the stages.

    path      a `.moe` file, or a `.mlir` file at graph or kernel level; an artifact, to look at what it was made from
    layer     which layer of the file, where it holds several
    defines   values for the layer's parameters (`-D`)
    target    a name of `moec.backends.registry.BACKENDS`
    passes    pass specifications instead of the default pipeline
    training  also compile the functions that train the layer
    layout    which layout of the layer, where it has several
    variants  also compile what the layer's policy allows it to become, into the same artifact
    machine   a file of a machine's measured figures, by which the schedule of a layer on a mesh is chosen
    """

    path: Path
    layer: str | None = None
    defines: Mapping[str, Any] = field(default_factory=dict)
    target: str = "cpu"
    passes: Sequence[str] | None = None
    observe: Observer = _nobody
    training: bool = False
    layout: str | None = None
    variants: bool = False
    machine: Path | None = None
    _warnings: list[Diagnostic] = field(default_factory=list, init=False, repr=False)

    @cached_property
    def backend(self) -> "Backend | ProjectBackend":
        from moec.backends.registry import backend_of

        return backend_of(self.target)

    @cached_property
    def _read(self) -> tuple[ir.Module, dict[str, str], dict[str, Any]]:
        """The graph-level module, the sources by name (the main one first), the resolved options."""
        with self.stage("graph"):
            if self.path.suffix == ".mlir":
                self._refuse_layout("IR")
                from moec.frontend.files import read_source

                text = read_source(self.path).text
                return ir_text.parse_layer(text, str(self.path), context()), {self.path.name: text}, {}
            if is_library(self.path):
                self._refuse_layout("an artifact")
                texts = container.read(self.path).texts
                return ir_text.parse(texts[container.GRAPH_IR], str(self.path), context()), {}, {}
            from moec import frontend

            layer = frontend.load_layer(self.path, self.layer, self.defines, self.layout)
            self._warnings.extend(layer.warnings)
            return frontend.lower(layer, context()), {s.name: s.text for s in layer.sources}, layer.options

    def _refuse_layout(self, what: str) -> None:
        """Raises DiagnosticError where a layout or parameters are given for what was made with some."""
        if self.layout is not None or (self.defines and what != "IR"):
            given = "layout" if self.layout is not None else "parameters"
            said = f"`{self.path}` is {what}, which holds the {given} that it was made with"
            fix = Fix(f"leave the {given} out, or give the `.moe` file")
            raise DiagnosticError([Diagnostic("E0452", Severity.ERROR, said, (), (), fix)])

    @property
    def sources(self) -> Mapping[str, str]:
        """The texts that the layer was read from, the main one first."""
        return self._read[1]

    @property
    def options(self) -> Mapping[str, Any]:
        """The layer's parameters."""
        return self._read[2]

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """What is odd in the file, though it can be compiled."""
        self._read  # noqa: B018 - it is read when it is needed
        return tuple(self._warnings)

    @property
    def graph(self) -> ir.Module:
        """The module at graph level; once `kernels` is asked for, passes have rewritten it in place."""
        return self._read[0]

    @cached_property
    def graph_text(self) -> str:
        return ir_text.show(self.graph)

    @cached_property
    def _kernels(self) -> "tuple[ir.Module, Report]":
        from moec import passes

        module, _, _ = self._read
        self.graph_text  # noqa: B018 - passes work in place, so the graph is printed before they run
        with self.stage("kernels"):
            default: Sequence[str] = passes.DEFAULT_PIPELINE
            if isinstance(self.backend, ProjectBackend):
                passes.run(module, passes.parse_pipeline(["drop-losses"]))
                self.backend.prepare(module)
                default = self.backend.pipeline()
            specs = default if self.passes is None else self.passes
            if self.training and not has_training(module):
                specs = ("differentiate", *specs)
            return module, passes.run(module, passes.parse_pipeline(specs))

    @property
    def kernels(self) -> ir.Module:
        return self._kernels[0]

    @property
    def report(self) -> "Report":
        """Pass timings and remarks."""
        return self._kernels[1]

    @property
    def stages(self) -> tuple[str, ...]:
        """Names that `emit` takes, in order."""
        return (*FRONT_STAGES, *self.backend.stages())

    def emit(self, stage: str) -> str:
        """The text of a stage.  Raises DiagnosticError where there is none of that name."""
        if stage not in self.stages:
            near = closest(stage, self.stages)
            hint = f"did you mean `{near}`?" if near else f"the stages are: {', '.join(self.stages)}"
            raise DiagnosticError(
                [Diagnostic("E0606", Severity.ERROR, f"there is no stage `{stage}`", (), (), Fix(hint))]
            )
        if stage == "graph":
            return self.graph_text
        if stage == "kernels":
            return ir_text.show(self.kernels)
        return self.backend.lower(self.kernels, stage)

    def manifest(self, variants: Sequence[Variant], cuda: Cuda | None = None) -> Manifest:
        """The manifest of a library that has these variants, and this code for CUDA devices."""
        from moec.passes.parallel import parallel

        name, text = next(iter(self.sources.items()))
        return Manifest(
            compiler=f"moec {version('moec')}",
            layer=describe.layer_name(self.kernels),
            source=Source(name, hashlib.sha256(text.encode()).hexdigest()),
            options=self.options,
            target=self.target,
            variants=tuple(variants),
            inputs=describe.inputs(self.kernels),
            outputs=describe.outputs(self.kernels),
            parameters=describe.weights(self.kernels),
            guarantees=describe.guarantees(self.kernels),
            statistics=describe.statistics(self.kernels),
            training=describe_training.training(self.kernels),
            quantised=quantised(layer_function(self.kernels)),
            policy=describe_policy.policy(self.kernels),
            cuda=cuda,
            parallel=parallel(self.kernels),
        )

    @property
    def default_output(self) -> Path:
        """Where the result goes if nobody says: an artifact beside the file, a project in a folder of its name.

        Raises DiagnosticError where that is nowhere sensible.
        """
        if not self.path.name:
            fix = Fix("give a `.moe` file")
            raise DiagnosticError([Diagnostic("E0108", Severity.ERROR, f"`{self.path}` is a folder", (), (), fix)])
        if self.path.exists() and not self.path.is_file() and not self.path.is_dir():
            said = f"`{self.path}` is no ordinary file, after which the result could be named"
            raise DiagnosticError([Diagnostic("E0607", Severity.ERROR, said, (), (), Fix("name a file with `-o`"))])
        return self.path.with_suffix("" if isinstance(self.backend, ProjectBackend) else ".so")

    def write(self, output: Path) -> None:
        """Compile to machine code and write the artifact, or the folder of a project.

        Raises DiagnosticError for what is wrong with the file or with `output`, ToolchainError without a linker.
        """
        if is_library(self.path):
            fix = Fix("give the `.moe` file that it was made from; `moec inspect` shows what is in an artifact")
            raise DiagnosticError(
                [Diagnostic("E0108", Severity.ERROR, f"`{self.path}` is compiled already", (), (), fix)]
            )
        self._read  # noqa: B018 - what is wrong with the file is said before what is wrong with the output
        if isinstance(self.backend, ProjectBackend):
            from moec.pipeline.folder import write_project

            write_project(self, self.backend, output)
            return
        _require_writable(output, (self.path, self.machine))
        kernels = self.kernels
        self._require_use_of_machine()
        wanted = self._wanted()
        follows = describe_policy.policy(kernels) is not None
        known = Objects() if follows else None  # in parts, which variants have in common with it
        with self.stage("machine code"):
            library = self.backend.compile(kernels, known=known)
        texts = {container.GRAPH_IR: self.graph_text, container.KERNEL_IR: self.emit("kernels")}
        texts |= {f"source/{name}": text for name, text in self.sources.items()}
        texts |= library.texts
        manifest = self.manifest(library.variants, library.cuda)
        ahead = Ahead({}, {} if known is None else known.kept)
        if wanted is not None:
            base = container.Artifact(str(output), "", manifest, library.data, texts, objects=ahead.objects)
            ahead = prebuild(base, wanted, self.stage)
        pieces: Mapping[str, bytes] = {}
        if manifest.parallel is not None:
            from moec.pipeline.pieces import compile_pieces

            made = compile_pieces(self.graph_text, manifest, self.training, self.machine, self._piece_stage)
            pieces, texts[container.PIECES_IR] = made.artifacts, made.text
            manifest = replace(manifest, schedule=made.schedule)
            self.report.remarks.entries.extend(made.remarks.entries)
        with self.stage("artifact"):
            container.write(output, library.data, manifest, texts, ahead.variants, pieces, ahead.objects)

    def _wanted(self) -> Wanted | None:
        """What to compile ahead beside the layer.  Raises DiagnosticError where that is asked for in vain; asked before
        seconds go into compiling the layer itself."""
        if not self.variants:
            return None
        return worth_compiling(self.manifest(()))

    def _require_use_of_machine(self) -> None:
        """Raises DiagnosticError where a machine file is given for a layer that runs in one process."""
        from moec.passes.parallel import parallel

        if self.machine is None or parallel(self.kernels) is not None:
            return
        said = f"`{describe.layer_name(self.kernels)}` has no layout on a mesh, so `{self.machine}` is of no use"
        fix = Fix("leave --machine out, or choose a layout on a mesh with --layout")
        raise DiagnosticError([Diagnostic("E0634", Severity.ERROR, said, (), (), fix)])

    def _piece_stage(self, name: str) -> AbstractContextManager[None]:
        return self.stage(f"piece {name}")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Tell the observer that a stage begins and, at the end, how long it took."""
        self.observe(name, 0.0)
        start = time.perf_counter()
        yield
        self.observe(name, time.perf_counter() - start)


def _require_writable(output: Path, inputs: Sequence[Path | None]) -> None:
    """Refuse an output that cannot be written, or would be lost, before seconds go into compiling it."""
    why = None
    if output.is_dir():
        why = "it is a folder"
    elif output.exists() and not output.is_file():
        why = "it is no ordinary file, and would be replaced by one"
    elif not output.parent.is_dir():
        why = f"there is no folder `{output.parent}`"
    elif not os.access(output.parent, os.W_OK):
        why = f"the folder `{output.parent}` is not writable"
    elif would_lose(output, *inputs):
        why = "it is what is compiled, and would be lost"
    if why is not None:
        fix = Fix("name a file in a folder that exists with `-o`")
        raise DiagnosticError([Diagnostic("E0607", Severity.ERROR, f"cannot write `{output}`: {why}", (), (), fix)])


def compile(
    path: str | Path,
    output: str | Path | None = None,
    *,
    layer: str | None = None,
    defines: Mapping[str, Any] | None = None,
    target: str = "cpu",
    passes: Sequence[str] | None = None,
    observe: Observer = _nobody,
    training: bool = False,
    layout: str | None = None,
    variants: bool = False,
    machine: str | Path | None = None,
) -> Path:
    """Compile a layer of a `.moe` (or `.mlir`) file to an artifact; returns where it was written.

    `output` defaults to the file's name with the suffix `.so`, beside it; for a `target` such as `hls:zcu102`, which
    makes a project, it is a folder and defaults to the file's name without a suffix.  With `training` the artifact can
    also be trained (`moec.load(path, training=True)`).  `layout` says by which of its layouts the layer follows its
    load; it may be left out where the layer has one or none.  With `variants` the artifact also holds what its layout
    allows it to become, compiled ahead for machines without the compiler.  `machine` is a file of measured figures by
    which the schedule of a layer on a mesh is chosen; without one it is chosen by what the mesh says.

    Raises DiagnosticError for what is wrong with the file, ToolchainError where no linker is found.
    """
    given = dict(defines or {})
    file = Path(machine) if machine is not None else None
    made = Compilation(Path(path), layer, given, target, passes, observe, training, layout, variants, file)
    target_path = Path(output) if output is not None else made.default_output
    made.write(target_path)
    return target_path
