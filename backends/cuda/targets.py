"""The architectures that a target `cuda:ARCH[,ARCH...]` names."""

from __future__ import annotations

from moec.backends.cuda.arch import ARCHITECTURES, Arch
from moec.backends.cuda.faults import fault
from moec.diagnostics import closest


def architectures(option: str | None) -> tuple[Arch, ...]:
    """Those that the part behind `cuda:` lists, oldest first; all of them where there is none.

    Raises DiagnosticError (E0710) for what is no architecture.
    """
    if option is None:
        return tuple(ARCHITECTURES.values())
    names = [name.strip() for name in option.split(",")]
    for name in names:
        if name not in ARCHITECTURES:
            near = closest(name, ARCHITECTURES)
            hint = f"did you mean `cuda:{near}`?" if near else f"the architectures are: {', '.join(ARCHITECTURES)}"
            raise fault("E0710", f"there is no architecture `{name}` for the target `cuda`", hint)
    return tuple(arch for name, arch in ARCHITECTURES.items() if name in names)
