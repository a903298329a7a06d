"""moec: an ahead-of-time compiler for Mixture-of-Experts layers.

    artifact = moec.compile("layer.moe", "layer.so")     # needs moec[compiler]
    layer = moec.load(artifact)                          # needs torch, numpy and tvm-ffi only
    y = layer(x)

Everything public is looked up on first use, so that loading an artifact imports no compiler.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moec.errors import MoecError as MoecError
    from moec.pipeline import compile as compile
    from moec.runtime.load import load as load
    from moec.runtime.quantize import quantize as quantize

_PUBLIC = {
    "compile": "moec.pipeline",
    "load": "moec.runtime.load",
    "quantize": "moec.runtime.quantize",
    "MoecError": "moec.errors",
}

__all__ = ["MoecError", "__version__", "compile", "load", "quantize"]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        globals()[name] = version("moec")  # looking it up searches sys.path
        return globals()[name]
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'moec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
