"""What the manifest says of taking over packed weights."""

from __future__ import annotations

import re
from dataclasses import dataclass

from moec.artifact.fields import Fields

_LAYOUT = re.compile("[0-9a-f]{16}")
_MOST_BYTES = 2**46
_MOST_STEPS = 2**24


@dataclass(frozen=True)
class Adoption:
    """How the packed weights of a base are taken over, by the function `adopt`.

    layout   that of the base's
    steps    how many there are
    scratch  bytes of memory for a step
    shared   bytes of the packed weights that stay unwritten then, since they are read where the base has them
    """

    layout: str
    steps: int
    scratch: int
    shared: int


def read_adoption(fields: Fields) -> Adoption:
    """Raises InvalidManifest."""
    adoption = Adoption(
        fields.string("layout", _LAYOUT),
        fields.integer("steps", 1, _MOST_STEPS),
        fields.integer("scratch", 0, _MOST_BYTES),
        fields.integer("shared", 0, _MOST_BYTES),
    )
    fields.finish()
    return adoption
