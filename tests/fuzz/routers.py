"""Random routers: calls of the standard library's, and definitions as people write them."""

from __future__ import annotations

from dataclasses import dataclass

from tests.fuzz.choices import Choices
from tests.fuzz.rows import TASKS, VOCABULARY, random_router


@dataclass(frozen=True)
class Router:
    """A definition (empty for the standard library's), the call, how many experts a token may choose, which values its
    auxiliary losses could read."""

    definition: str
    call: str
    slots: int
    losses: tuple[str, ...] = ("balance", "z")


def router(choices: Choices, count: int, d: int) -> Router:
    """A router for layers of `count` experts and rows of `d`."""
    if choices.chance(40):
        if choices.chance(60):
            body, slots = random_router(choices, count, d)
            return Router(f"router mine() {{\n{body}\n}}\n", "mine()", slots, ())
        return _own(choices, count)
    k = choices.whole(1, min(count, choices.one((2, 3, 8))))
    groups = choices.one([n for n in range(1, min(count, 8) + 1) if count % n == 0])
    each = choices.whole(1, min(count // groups, 4))
    found = [
        Router("", f"softmax_top({k})", k),
        Router("", f"softmax_top({k}, renorm = false)", k),
        Router("", f"sigmoid_top({k})", k),
        Router("", "switch()", 1),
        Router("", f"mixtral({k})", k),
        Router("", f"qwen_moe({k}, renorm = true)", k),
        Router("", f"deepseek_moe({k}, scale = 0.5)", k),
        Router("", f"moge({each * groups}, groups = {groups})", each * groups),
        Router("", f"top_p({choices.one((0.3, 0.6, 0.9))}, most = {k})", k),
        Router("", f"adamoe({k}, nulls = {choices.whole(1, 5)})", k, ("z",)),
        Router("", f"sigma_moe({k})", k),
        Router("", f"hash({VOCABULARY}, k = {k})", k, ()),
        Router("", f"task_moe({k}, tasks = {TASKS})", k),
    ]
    if count >= 2:
        found.append(Router("", "gshard_top2()", 2))
    if count // groups >= 2:
        kept = choices.whole(1, groups)
        most = min(k, kept * (count // groups))
        found.append(Router("", f"deepseek_v3({most}, groups = {groups}, top_groups = {kept})", most))
    return choices.one(found)


LOGITS = (
    "logits = linear(x, count)",
    "logits = linear(x, count, bias = true)",
    "logits = linear(tanh(linear(x, 7, bias = true)), count)",
    "n = x * rsqrt(mean(square(x)) + 0.00001)\n  logits = linear(n, count) * exp(param(1))",
    "input wish[count] : f32\n  logits = linear(x, count) + wish",
    "b = param(count)\n  logits = 2 * linear(x, count) - b",
    "h = linear(x, 5)\n  logits = linear(h / (1 + norm(h)), count)",
    "g = linear(x, 1)\n  logits = linear(x, count) * sigmoid(g)",
)
SCORES = ("softmax(logits)", "sigmoid(logits)", "softplus(logits)", "1 / (1 + square(logits))", "relu(logits) + 0.1")
WEIGHTS = (
    "p / sum(p over pick)",
    "p",
    "softmax(logits over pick)",
    "1 / k",
    "p over pick",
    "clamp(p, 0.1, 0.4)",
    "sqrt((p over pick) + 0.01)",
    "p / (max_of(p over pick) + 0.01)",
    "0.5",
    "mean(p over pick)",
    "where(p > 0.2, p, 0.5 * p)",
)


def _own(choices: Choices, count: int) -> Router:
    logits, score, weight = choices.one(LOGITS), choices.one(SCORES), choices.one(WEIGHTS)
    k = choices.whole(1, min(count, choices.one((2, 3, 7))))
    picks = ["top_k(p, k)", "top_k(logits, k)", "top_p(softmax(logits), 0.7, k)"]
    groups = choices.one([n for n in range(1, min(count, 6) + 1) if count % n == 0])
    if groups * (k // groups) == k:
        picks.append(f"merge(top_k(split(p, {groups}), {k // groups}))")
    more = ""
    if k <= count // groups:
        more = (
            f"  s = split(p, {groups})\n  best = chosen(top_k(max_of(s), {choices.whole(1, groups)}))\n"
            "  eligible = merge(where(column(best), s, -inf))\n"
        )
        picks.append("top_k(eligible, k)")
    pick = choices.one(picks)
    body = f"  {logits}\n  p = {score}\n{more if 'eligible' in pick else ''}  pick = {pick}\n  weight = {weight}\n"
    losses: tuple[str, ...] = ("z",)
    if score == "softmax(logits)":
        body, losses = body + "  probability = p\n", ("balance", "z")
    return Router(f"router mine(k) {{\n{body}}}\n", f"mine({k})", k, losses)
