"""Files with gaps, `@name@`, that a design fills."""

from __future__ import annotations

import re
from importlib.resources import files

_GAP = re.compile("@([a-z_]+)@")


def filled(template: str, **words: str | int) -> str:
    """The template of this name with its gaps filled; KeyError where there is no word for one."""
    text = files("moec.backends.hls.cpp").joinpath("templates", template).read_text(encoding="utf-8")
    return _GAP.sub(lambda gap: str(words[gap[1]]), text)
