"""Compiling a layer anew from its artifact alone: for some tokens, another capacity, or experts quantised besides."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch_mlir import ir

import moec
from moec.artifact import container
from moec.artifact.container import Artifact
from moec.artifact.manifest import Manifest
from moec.artifact.specialisation import QuantisedExperts, Specialisation
from moec.backends.objects import Known, Lent, Objects
from moec.dialect import context
from moec.dialect.functions import functions, is_plain, layer_function
from moec.errors import ArtifactError
from moec.passes.registry import DEFAULT_PIPELINE
from moec.pipeline import ir_text
from moec.pipeline.describe_quantised import quantised

PASSES = (*DEFAULT_PIPELINE, "refit-capacity", "quantise-experts", "specialise-tokens")
"""Those that compiling anew may run, by name."""


def respecialise(
    path: str | os.PathLike[str],
    specialisation: Specialisation,
    output: str | os.PathLike[str],
    variant: str | None = None,
    known: Known | None = None,
) -> Path:
    """Compile the layer of an artifact anew and write the result; the file it was made from is not needed.

    path     the artifact, which must not be specialised itself
    variant  compile for this instruction set only; None: for all of the artifact's
    known    code of layers that were specialised before, for what they have in common; what the artifact itself brings
             along is used anyway

    The new artifact takes and gives what the old one does and names it as its base, but it cannot be trained and holds
    no policy.  Raises ArtifactError for an artifact that cannot be read or has no such variant, DiagnosticError where
    the layer does not allow the specialisation, ToolchainError without a linker.
    """
    base = container.read(path)
    library, manifest, texts = compiled(base, specialisation, variant, known)
    container.write(output, library, replace(manifest, base=base.sha256), texts)
    return Path(output)


def compiled(
    base: Artifact, specialisation: Specialisation, variant: str | None = None, known: Known | None = None
) -> tuple[bytes, Manifest, dict[str, str]]:
    """Library, manifest (which names no base yet) and texts of a specialised artifact.  Raises as `respecialise`."""
    from moec import passes
    from moec.backends.cpu.backend import CpuBackend

    if base.manifest.specialisation is not None:
        raise ArtifactError(f"{base.path} is specialised already; specialise the artifact that it is made from")
    names = [v.name for v in base.manifest.variants]
    if variant is not None and variant not in names:
        raise ArtifactError(f"{base.path} has no variant {variant!r}; it has {', '.join(names)}")
    missing = next((name for name in (container.GRAPH_IR, container.KERNEL_IR) if name not in base.texts), None)
    if missing is not None:
        raise ArtifactError(f"{base.path} holds no {missing} to compile anew")
    changes = _changes(specialisation)
    graph_text, within = base.texts[container.GRAPH_IR], context()
    if changes:
        graph = ir_text.parse(graph_text, container.GRAPH_IR, within)
        passes.run(graph, passes.parse_pipeline(changes), verify_each=False)
        graph_text = ir_text.show(graph, verified=True)
    as_it_is = ir_text.parse(base.texts[container.KERNEL_IR], container.KERNEL_IR, within)
    _drop_training(as_it_is)
    tuning = _tuning(specialisation)
    lender = None
    if specialisation.quantised:
        kernels, lender = graph, as_it_is
        passes.run(kernels, passes.parse_pipeline([*passes.DEFAULT_PIPELINE, *tuning]), verify_each=False)
    else:
        kernels = as_it_is
        passes.run(kernels, passes.parse_pipeline([*changes, *tuning]), verify_each=False)
    # Layers follow their load on the CPU; an artifact's code for other devices stays as it is.
    parts = Lent(Objects() if known is None else known, base.objects)
    library = CpuBackend().compile(kernels, names if variant is None else [variant], parts, lender)
    manifest = replace(
        base.manifest,
        compiler=f"moec {moec.__version__}",
        variants=library.variants,
        training=None,
        quantised=quantised(layer_function(kernels)),
        policy=None,
        cuda=None,
        specialisation=specialisation,
    )
    sources = {name: text for name, text in base.texts.items() if name.startswith("source/")}
    return (
        library.data,
        manifest,
        {container.GRAPH_IR: graph_text, container.KERNEL_IR: ir_text.show(kernels, verified=True), **sources},
    )


def _changes(specialisation: Specialisation) -> list[str]:
    """The passes that change what the layer computes; they run at graph level, the first kind at kernel level too."""
    refit = [] if specialisation.capacity is None else [f"refit-capacity{{factor={specialisation.capacity!r}}}"]
    return [*refit, *map(_quantise, specialisation.quantised)]


def _quantise(one: QuantisedExperts) -> str:
    numbers = "+".join(map(str, one.numbers))
    return f"quantise-experts{{experts={numbers},format={one.format},group={one.group or 0},scale={one.scale}}}"


def _tuning(specialisation: Specialisation) -> Sequence[str]:
    """The passes that keep every bit; they run at kernel level."""
    if specialisation.tokens is None:
        return ()
    least, most = specialisation.tokens
    return (f"specialise-tokens{{least={least},most={most}}}",)


def _drop_training(module: ir.Module) -> None:
    for function in functions(module):
        if is_plain(function):
            function.erase()
