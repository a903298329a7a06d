"""What a design is predicted to take and to give: as JSON, and as a page that a person can read."""

from __future__ import annotations

import json
from collections.abc import Sequence

from moec.backends.hls.report.estimate import estimate
from moec.backends.hls.report.page import page
from moec.fixed.design import Design


def report(design: Design, decided: Sequence[str]) -> dict[str, bytes]:
    """The files of `report/` by their paths; `decided` is what the passes said that they decided and why."""
    found = estimate(design, decided)
    return {
        "report/estimate.json": json.dumps(found, indent=1).encode() + b"\n",
        "report/index.html": page(design, found).encode(),
    }
