"""Compiling ahead what a policy allows, so that a layer can follow its load where no compiler is installed."""

from collections.abc import Callable, Mapping

from moec.artifact import container
from moec.artifact.allowed import capacities, coldest, regimes
from moec.artifact.container import Artifact
from moec.artifact.policy import Policy
from moec.artifact.specialisation import Specialisation
from moec.artifact.traffic import Observed
from moec.diagnostics import Diagnostic, Fix, Severity
from moec.errors import DiagnosticError
from moec.pipeline.respecialise import compiled


def worth_compiling(policy: Policy) -> tuple[Specialisation, ...]:
    """What a policy allows that is known before the layer runs.

    A range of tokens each, a few capacities and, where the policy's load is a trace, the experts that are coldest in
    it.  Raises DiagnosticError where the policy allows nothing.
    """
    routing = policy.load.routing if policy.load is not None else None
    cold = coldest(policy, routing.counts) if isinstance(routing, Observed) else ()
    found = (*regimes(policy), *capacities(policy), *cold)
    if not found:
        raise _nothing(f"the layout `{policy.layout}` allows nothing that is known ahead")
    return found


def prebuild(base: Artifact, observe: Callable[[Specialisation], None]) -> Mapping[str, bytes]:
    """The artifacts of all of these by their names, compiled from one that need not be written yet.

    `observe` is called with each before it is compiled.  Raises DiagnosticError where there is nothing to compile.
    """
    policy = base.manifest.policy
    if policy is None:
        raise _nothing(f"no layout says which variants `{base.manifest.layer}` may have")
    made = {}
    for specialisation in worth_compiling(policy):
        observe(specialisation)
        library, manifest, texts = compiled(base, specialisation)
        own = {name: text for name, text in texts.items() if not name.startswith("source/")}
        made[specialisation.name] = container.packed(library, manifest, own, where=specialisation.name)
    return made


def _nothing(why: str) -> DiagnosticError:
    fix = Fix("write `layout NAME for LAYER { specialise tokens(1..16, 17..4096) }`, or compile without `--variants`")
    return DiagnosticError([Diagnostic("E0612", Severity.ERROR, why, (), (), fix)])
