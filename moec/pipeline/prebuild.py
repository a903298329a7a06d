"""Compiling ahead what a policy allows, so that a layer can follow its load where no compiler is installed."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

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


def worth_compiling(manifest: Manifest) -> tuple[Specialisation, ...]:
    """What a layer's policy allows that is known before it runs.

    Ranges of tokens for which the code would be another, a few capacities and, where the policy's load is a trace, the
    experts that are coldest in it.  Raises DiagnosticError where nothing is left.
    """
    policy = manifest.policy
    if policy is None:
        raise _nothing(f"no layout says which variants `{manifest.layer}` may have")
    routing = policy.load.routing if policy.load is not None else None
    cold = coldest(policy, routing.counts) if isinstance(routing, Observed) else ()
    ranges = (one for one in regimes(policy) if one.tokens is not None and range_gain(manifest, one.tokens[1]) > 1)
    found = (*ranges, *capacities(policy), *cold)
    if not found:
        raise _nothing(f"the layout `{policy.layout}` allows nothing that is known ahead")
    return found


def prebuild(
    base: Artifact,
    wanted: Sequence[Specialisation],
    stage: Callable[[Specialisation], AbstractContextManager[None]],
) -> Mapping[str, bytes]:
    """The artifacts of all that is `wanted` by their names, compiled from one that need not be written yet, each within
    what `stage` gives for it."""
    made, known = {}, Objects()
    for specialisation in wanted:
        with stage(specialisation):
            library, manifest, texts = compiled(base, specialisation, known=known)
            own = {name: text for name, text in texts.items() if not name.startswith("source/")}
            made[specialisation.name] = container.packed(library, manifest, own, where=specialisation.name)
    return made


def _nothing(why: str) -> DiagnosticError:
    fix = Fix("write `layout NAME for LAYER { specialise tokens(1..16, 17..4096) }`, or compile without `--variants`")
    return DiagnosticError([Diagnostic("E0612", Severity.ERROR, why, (), (), fix)])
