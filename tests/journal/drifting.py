"""Journals of layers whose load drifts, as an adaptation would write them; any seed gives the same one again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

BEGIN = 1_790_000_000.0
_RANGES = ((1, 16), (17, 256), (257, 4096))
_CONDITION = "imbalance > 1.3 and tokens >= 64"


def start(experts: int = 64, slots: int = 8, layer: str = "OLMoE", **fields: Any) -> dict[str, Any]:
    trigger = {"when": {}, "text": _CONDITION, "window": {"calls": 200}, "hysteresis": 0.1, "gain": 1.05}
    policy = {"layout": "Serve", "triggers": [trigger], "max_variants": 4, "tokens": [list(r) for r in _RANGES]}
    return {
        "event": "start",
        "time": BEGIN,
        "layer": layer,
        "artifact": "5f3a9c" + "0" * 58,
        "pid": 4242,
        "experts": experts,
        "slots": slots,
        "policy": policy,
        "variant": "avx512_bf16",
        **fields,
    }


def records(
    seconds: int, experts: int = 64, slots: int = 8, seed: int = 0, overflow: float = 0.0, **fields: Any
) -> Iterator[dict[str, Any]]:
    """One sample a second.  The hot set wanders, decoding and prefill take turns, variants come and go."""
    random = np.random.default_rng(seed)
    yield start(experts, slots, **fields)
    order, calls, tokens, active = random.permutation(experts), 0, 0, ["base"]
    held = 0.0
    for second in range(seconds):
        time = BEGIN + 1 + second + random.uniform(0, 0.02)
        if second % 97 == 96:  # two experts change places
            one, other = random.integers(experts, size=2)
            order[[one, other]] = order[[other, one]]
        exponent = 0.5 + 0.7 * (1 + np.sin(2 * np.pi * second / max(seconds, 1) * 1.5)) / 2
        load = (1.0 + np.arange(experts)) ** -exponent
        load = load / load.sum()
        prefill = second % 300 >= 220
        size = 1024 if prefill else 16
        rate = random.normal(60, 4) if prefill else random.normal(1400, 60)
        drawn = random.multinomial(int(rate * size), load)[order]
        speed = 1.0 / (1.35 if len(active) > 1 and not prefill else 1.0)
        p50 = (14.0 if prefill else 0.55) * speed * random.normal(1, 0.02)
        imbalance = float(drawn.max() / drawn.mean())
        calls, tokens = calls + int(rate), tokens + int(rate) * size
        held = held + rate if imbalance > 1.3 and prefill else 0.0
        yield from _events(second, time, active)
        yield {
            "event": "sample",
            "time": time,
            "calls": calls,
            "tokens": tokens,
            "calls_per_second": rate,
            "load": [round(float(share), 5) for share in drawn / drawn.sum()],
            "imbalance": imbalance,
            "share": imbalance / experts,
            "empty": float((drawn == 0).mean()),
            "overflow": overflow,
            "tokens_per_call": float(size),
            "histogram": {"1": int(rate) // 10, str(size): int(rate) - int(rate) // 10},
            "latency_ms": {"p50": p50, "p99": p50 * random.uniform(1.2, 1.6)},
            "memory": 805_306_368,
            "active": list(active),
            "runs": _runs(active),
            "guards": [_guard(held, imbalance, float(size))],
        }


def _runs(active: list[str]) -> list[dict[str, Any]]:
    names = {ends: f"tokens_{ends[0]}_{ends[1]}" for ends in _RANGES}
    runs = [
        {"tokens": list(ends), "variant": name if name in active else "base", "trial": None}
        for ends, name in names.items()
    ]
    return [*runs, {"tokens": [4097, None], "variant": "base", "trial": None}]


def _guard(held: float, imbalance: float, tokens: float) -> dict[str, Any]:
    state = "idle" if not held else "holding" if held < 200 else "cooling"
    value = {"imbalance": imbalance, "tokens": tokens}
    counted = min(held, 200) if state == "holding" else 0
    return {"text": _CONDITION, "state": state, "value": value, "held": counted, "window": 200, "unit": "calls"}


def _events(second: int, time: float, active: list[str]) -> Iterator[Mapping[str, Any]]:
    """The story of three variants: one stays, one is worse, one fails."""
    turn, step = divmod(second, 240)
    name = ("tokens_1_16", "tokens_257_4096", "cold_16_int4")[turn % 3]
    weigh = {"guard": _CONDITION, "expected_calls": 48_000.0, "compile_seconds": 1.0}
    if step == 12 and name not in active:
        why = "1.35x over about 48000 calls saves 6.9 s, more than the 1.0 s that compiling takes"
        event = {"what": "compile", "why": f"most calls have 1 to 16 tokens; {why}", "candidate": name}
        yield {"event": "decision", "time": time, **event, "predicted_gain": 1.35, **weigh}
    elif step == 13 and turn % 3 == 2:
        why = "the compiler took longer than 60 s"
        yield {"event": "failed", "time": time, "candidate": name, "why": why}
        yield {"event": "decision", "time": time, "what": "reject", "why": why, "candidate": name}
    elif step == 13 and name not in active:
        yield {"event": "compiled", "time": time, "candidate": name, "seconds": 0.62, "from": "compiler"}
    elif step == 14 and turn % 3 < 2 and name not in active:
        measured = {"identical": True, "error": 0.0, "gain": 1.31, "old_ms": 0.55, "new_ms": 0.42}
        yield {"event": "validated", "time": time, "candidate": name, **measured}
        swap = {"from": list(active), "to": name, "variants": [*active, name], "seconds": 0.00001}
        active.append(name)
        yield {"event": "swap", "time": time, **swap}
    elif step == 22 and name in active and turn < 3:
        if turn % 3 == 0:
            why = "measured 1.33x over 412 calls"
            yield {"event": "decision", "time": time, "what": "keep", "why": why, "candidate": name, "gain": 1.33}
        else:
            why = "measured 0.97x over 380 calls, 1.05x are needed"
            active.remove(name)
            yield {"event": "rollback", "time": time, "from": name, "to": "base", "why": why, "gain": 0.97}
            yield {"event": "decision", "time": time, "what": "reject", "why": why, "candidate": name}
    elif step == 100 and turn % 3 == 1:
        experts = {"in": [3, 17], "out": [40, 41, 5]}
        yield {"event": "moved", "time": time, **experts, "bytes": 25_165_824, "seconds": 0.08}


def write(path: Path, lines: Iterator[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
