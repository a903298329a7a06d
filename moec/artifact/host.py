"""Which variant of an artifact this processor can run, told from the operating system's list of features.

The artifact's own `supports` function, which asks the processor itself, has the last word when a layer is loaded; this
module answers without executing anything, for `moec inspect`.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path

from moec.artifact.manifest import Variant

# Where the kernel's name (after `_plain`) differs from LLVM's.
_LLVM_NAMES = {"pni": "sse3", "abm": "lzcnt", "bmi1": "bmi", "3dnowprefetch": "prfchw", "lahflm": "sahf"}


def host_machine() -> str:
    """The architecture of this processor, such as "x86_64"."""
    return platform.machine()


def host_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Features that the kernel reports for this processor; empty where the kernel tells nothing."""
    if not cpuinfo.exists():
        return frozenset()
    for line in cpuinfo.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            names = {_plain(name) for name in value.split()}
            return frozenset(names | {_LLVM_NAMES[name] for name in names if name in _LLVM_NAMES})
    return frozenset()


def missing_features(variant: Variant, features: Iterable[str]) -> tuple[str, ...]:
    """Those features of `variant` that `features` lacks."""
    have = set(features)
    return tuple(name for name in variant.features if _plain(name.lstrip("+")) not in have)


def _plain(name: str) -> str:
    return name.lower().translate(str.maketrans("", "", "_-."))
