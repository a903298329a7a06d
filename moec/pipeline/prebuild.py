"""Compiling ahead what a policy allows, so that a layer can follow its load where no compiler is installed."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from moec.artifact import container
from moec.artifact.allowed import capacities, coldest, range_gain, regimes
from moec.artifact.container import Artifact
from moec.artifact.manifest import Manifest
from moec.artifact.specialisation import Specialisation
from moec.artifact.traffic import Observed
from moec.backends.objects import Objects
from moec.diagnostics import Diagnostic, Fix, Severity
from moec.errors import DiagnosticError
from moec.pipeline.respecialise import compiled


@dataclass(frozen=True)
class Wanted:
    """What to compile ahead.

    variants  known before the layer runs
    examples  of variants that are not, with some experts for others: their kernels are the same
    """

    variants: tuple[Specialisation, ...] = ()
    examples: tuple[Specialisation, ...] = ()


@dataclass(frozen=True)
class Ahead:
    """What was compiled ahead: whole artifacts by the names of their specialisations, and object files by digests."""

    variants: Mapping[str, bytes]
    objects: Mapping[str, bytes]


def worth_compiling(manifest: Manifest) -> Wanted:
    """What a layer's policy allows that is known before it runs.

    Ranges of tokens for which the code would be another, a few capacities and, where the policy's load is a trace, the
    experts that are coldest in it; else their kernels.  Raises DiagnosticError where nothing is left.
    """
    policy = manifest.policy
    if policy is None:
        raise _nothing(f"no layout says which variants `{manifest.layer}` may have")
    routing = policy.load.routing if policy.load is not None else None
    observed = routing.counts if isinstance(routing, Observed) else None
    experts = max((one.row[0] for one in manifest.statistics), default=0)
    cold = coldest(policy, [0.0] * experts if observed is None else observed) if experts else ()
    ranges = (one for one in regimes(policy) if one.tokens is not None and range_gain(manifest, one.tokens[1]) > 1)
    known = (*ranges, *capacities(policy))
    found = Wanted(known, cold) if observed is None else Wanted((*known, *cold))
    if found == Wanted():
        raise _nothing(f"the layout `{policy.layout}` allows nothing that is known ahead")
    return found


def prebuild(
    base: Artifact,
    wanted: Wanted,
    stage: Callable[[str], AbstractContextManager[None]],
) -> Ahead:
    """What is `wanted`, compiled from an artifact that need not be written yet, each within what `stage` gives for its
    name.

    The object files are the base's and those of variants with quantised experts: others have most of them in common.
    """
    variants, code, cold = {}, Objects(), Objects()
    for one in wanted.variants:
        with stage(f"variant {one.name}"):
            library, manifest, texts = compiled(base, one, known=cold if one.quantised else code)
            own = {name: text for name, text in texts.items() if not name.startswith("source/")}
            variants[one.name] = container.packed(library, manifest, own, where=one.name)
    for one in wanted.examples:
        with stage(f"kernels of {', '.join(experts.format for experts in one.quantised)}"):
            compiled(base, one, known=cold)
            for variant in base.manifest.variants:  # what a machine asks for: the interface is another one
                compiled(base, one, variant.name, known=cold)
    return Ahead(variants, {**base.objects, **cold.kept})


def _nothing(why: str) -> DiagnosticError:
    fix = Fix("write `layout NAME for LAYER { specialise tokens(1..16, 17..4096) }`, or compile without `--variants`")
    return DiagnosticError([Diagnostic("E0612", Severity.ERROR, why, (), (), fix)])
