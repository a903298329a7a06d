"""Why a layer cannot be built in fixed-point hardware, and where in the source that stands."""

from __future__ import annotations

from torch_mlir import ir

from moec.backends.base import Unsupported, unsupported
from moec.backends.hls.read.terms import Term


def refuse(term: Term, fallback: ir.Operation, why: str) -> Unsupported:
    """The reason why a term is not supported, at the operation that makes it, or else at `fallback`."""
    return unsupported("hls", fallback if term.op is None else term.op, why)
