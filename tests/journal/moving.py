"""A journal of experts that move, as the rank that leads would write it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.journal.drifting import BEGIN


def records(**fields: Any) -> Iterator[dict[str, Any]]:
    """One plan that is not worth it, one move, one that fails."""
    yield {"event": "start", "time": BEGIN, "layers": ["OLMoE"], "ranks": [0, 1, 2, 3], "pid": 4242, **fields}
    plan = {"event": "plan", "layer": "OLMoE", "before": 2.5, "copies": 6}
    yield {**plan, "time": BEGIN + 10, "what": "stay", "why": "too late", "after": 2.4, "saved": 0.1, "cost": 3.0}
    yield {**plan, "time": BEGIN + 90, "what": "move", "why": "copy 6", "after": 1.25, "saved": 40.0, "cost": 3.0}
    sizes = {"experts": 6, "sent": 4 << 20, "received": 0, "staged": 0, "seconds": 3.1}
    yield {"event": "travelled", "time": BEGIN + 94, "why": "", **sizes}
    yield {"event": "tables", "time": BEGIN + 95, "version": 1, "step": 1234, "seconds": 5e-5}
    yield {"event": "failed", "time": BEGIN + 200, "why": "a rank cannot read its weights", **sizes}
    yield {"event": "stop", "time": BEGIN + 300}
