"""Clock cycles of the tile's choice of experts, one logit and one bit of a quotient a cycle."""

from __future__ import annotations

from moec.fixed.arithmetic import SCORE_FRACTION
from moec.fixed.design import Design
from moec.fixed.model.geometry import routes
from moec.fixed.spec import Router, Score

DIVISION = SCORE_FRACTION + 2
"""Cycles of a division: the part, then a bit of the quotient in each."""


def chooses(design: Design) -> bool:
    """Whether the tile chooses experts: where it makes logits, and nothing else is added to them."""
    return routes(design) and not design.layer.router.selection


def features(router: Router) -> int:
    """Cycles from a logit to what a weight is made of."""
    return 1 if router.score is Score.IDENTITY else 5


def sums_up(router: Router) -> bool:
    """Whether weights are divided by the sum of those of the chosen experts; else the sum is of all experts."""
    return router.renorm or (router.score is Score.SOFTMAX and router.over == "chosen")


def choice(design: Design, tokens: int) -> int:
    """Cycles from the pulse that starts it until the last expert of the last token has been named."""
    router = design.layer.router
    divides = router.score is Score.SOFTMAX or router.renorm
    scan = design.layer.experts + features(router) + 1
    slot = (DIVISION if divides else 0) + 2
    return tokens * (scan + 1 + (router.slots if sums_up(router) else 0) + router.slots * slot) + 1
