"""Ways in which a layer is used, each of which has to give the bits that its kernels give alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.fuzz.ways import awkward, calls, compiled, cuda, paged, ranks, steps, unchosen, variants, weights
from tests.fuzz.ways.tried import Tried

WAYS: Mapping[str, Callable[[Tried], None]] = {
    "awkward": awkward.run,
    "calls": calls.run,
    "compiled": compiled.run,
    "cuda": cuda.run,
    "paged": paged.run,
    "ranks": ranks.run,
    "steps": steps.run,
    "unchosen": unchosen.run,
    "variants": variants.run,
    "weights": weights.run,
}
"""Each raises AssertionError, or what else is wrong."""
