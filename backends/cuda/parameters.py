"""The parameters of kernels."""

from __future__ import annotations

from collections.abc import Mapping

from moec.backends.cuda.kernel import Argument, BufferPointer, TensorPointer


def parameters(arguments: Mapping[str, Argument]) -> str:
    """Declarations of pointers by name, none of which reads what another writes, and of `tokens` at the end."""
    pointers = [(a.ctype, name) for name, a in arguments.items() if isinstance(a, TensorPointer | BufferPointer)]
    return ", ".join([*(f"{ctype} MOEC_RESTRICT {name}" for ctype, name in pointers), "int tokens"])
