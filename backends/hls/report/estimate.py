"""The estimate of a design as JSON data (docs/fpga.md names every field)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from moec.fixed.data import as_data
from moec.fixed.design import Design, Order
from moec.fixed.limits import reasons
from moec.fixed.model import synthesis as tile
from moec.fixed.model.kernel import buffer_parts, buffers, memory, resources, room
from moec.fixed.model.search import candidates, choose
from moec.fixed.model.timing import Prediction, predict
from moec.fixed.model.traffic import balance, even_counts, expert_bytes, port_bytes, spread, tokens_an_expert, visits
from moec.fixed.spec import Weights

SCHEMA = 1

SAYS = (
    "Modelled. Cycles are those of the compute tile in SystemVerilog, which a simulation counts exactly, with the "
    "memory as fast as the board's data sheet says; the clock is what is asked of the tools. No vendor's tool was run "
    "and no board was measured; power is not modelled."
)

PORTS = (1, 2, 4, 8, 16)
"""Numbers of weight ports that are compared."""


def estimate(design: Design, decided: Sequence[str]) -> dict[str, Any]:
    """What a design takes of its board and what calls of it take; times in seconds, sizes in bytes."""
    layer = design.layer
    return {
        "schema": SCHEMA,
        "says": SAYS,
        "design": as_data(design),
        "decisions": list(decided),
        "call": _call(design, design.tokens),
        "calls": [_call(design, tokens) for tokens in _sizes(design.tokens)],
        "roofline": {
            "tokens_an_expert": tokens_an_expert(layer, design.tokens, design.order),
            "bytes_a_cycle": port_bytes(design),
            "bytes_a_weight": layer.weights.bits / 8,
            "balance": balance(design),
            "multipliers": design.inputs * design.outputs,
        },
        "traffic": {
            "expert": expert_bytes(layer),
            "by_expert": expert_bytes(layer) * visits(layer, design.tokens, Order.EXPERT),
            "by_token": expert_bytes(layer) * visits(layer, design.tokens, Order.TOKEN),
            "experts_by_chance": spread(layer, design.tokens),
            "crossover_tokens": layer.experts / layer.router.slots,
        },
        "kernel": {
            "total": asdict(resources(design)),
            "room": asdict(room(design.board)),
            "buffers": [
                {
                    "name": one.name,
                    "bits": one.bits,
                    "banks": one.banks,
                    "memory": memory(design, one).value,
                    **asdict(buffer_parts(design)[one.name]),
                }
                for one in buffers(design)
            ],
        },
        "tile": asdict(tile.total(design)),
        "alternatives": list(_alternatives(design)),
    }


def _sizes(most: int) -> list[int]:
    """Powers of two up to the most tokens of a call, and that."""
    return sorted({most, *(1 << n for n in range(most.bit_length()))})


def _call(design: Design, tokens: int) -> dict[str, Any]:
    return {"tokens": tokens, **_prediction(predict(design, even_counts(design.layer, tokens)))}


def _prediction(made: Prediction) -> dict[str, Any]:
    cycles = asdict(made.latency) | {"total": made.latency.total}
    return {"seconds": made.seconds, "bound": made.bound, "loading": made.loading, "busy": made.busy, "cycles": cycles}


def _alternatives(design: Design) -> Iterator[dict[str, Any]]:
    """The same layer with other weights and other numbers of ports, each with the array that suits it on this board."""
    for weights in Weights:
        start = replace(design, layer=replace(design.layer, weights=weights))
        if reasons(start.layer):
            continue
        for ports in PORTS:
            if ports > design.board.ports:
                continue
            one = design if (weights, ports) == (design.layer.weights, design.ports) else _best(start, ports)
            if one is not None:
                made = predict(one, even_counts(one.layer, one.tokens))
                yield {
                    "weights": weights.value,
                    "ports": ports,
                    "inputs": one.inputs,
                    "outputs": one.outputs,
                    "seconds": made.seconds,
                    "bound": made.bound,
                    **{name: getattr(resources(one), name) for name in ("dsp", "bram", "uram", "lut")},
                }


def _best(start: Design, ports: int) -> Design | None:
    """The design with this number of ports; None where none fits."""
    fitting = list(candidates(start, 0, 0, ports))
    return choose(fitting).design if fitting else None
