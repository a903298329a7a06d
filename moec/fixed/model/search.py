"""Which designs fit a board, what their buffers are made of, and which of them is the fastest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from moec.fixed.design import Design, Memory, Order
from moec.fixed.model import synthesis
from moec.fixed.model.kernel import excess, over, resources
from moec.fixed.model.timing import Prediction, predict
from moec.fixed.model.traffic import even_counts

SMALLEST, LARGEST = 4, 64
"""Sides of the array that are tried."""

CLOSE = 1.03
"""Designs that take at most so many times as long as the fastest are as good; the smallest of them is taken."""

VISITS = 4096
"""Most visits of experts that a prediction for comparing designs goes through."""


@dataclass(frozen=True)
class Candidate:
    """A design that fits, and what a call of its largest number of tokens is predicted to take."""

    design: Design
    prediction: Prediction


def bind(design: Design, tile: bool = False) -> Design | None:
    """The design with its buffers in block RAM, or those that do not fit there in UltraRAM; None where neither does.

    A board without UltraRAM gets none.  With `tile` the compute tile in SystemVerilog has to fit, too.
    """
    kinds = (Memory.BRAM, Memory.URAM) if design.board.uram else (Memory.BRAM,)
    choices = sorted(product(kinds, repeat=3), key=lambda three: three.count(Memory.URAM))
    for rows, queues, weights in choices:
        bound = replace(design, rows_in=rows, queues=queues, weights_in=weights)
        if not excess(bound) and not (tile and over(synthesis.total(bound), bound.board)):
            return bound
    return None


def sides(most: int) -> list[int]:
    """Powers of two that are worth trying where a linear has `most` inputs, or outputs."""
    found = [SMALLEST]
    while found[-1] < min(most, LARGEST):
        found.append(found[-1] * 2)
    return found


def port_counts(most: int) -> list[int]:
    return [1 << n for n in range(most.bit_length())]


def candidates(start: Design, inputs: int, outputs: int, ports: int) -> Iterator[Candidate]:
    """Designs that fit, with this number of inputs, outputs and ports, or with any where it is 0."""
    layer = start.layer
    widest = max(layer.width, layer.routed.hidden)
    tokens = start.tokens
    if start.order is Order.TOKEN:
        tokens = min(tokens, max(1, VISITS // layer.router.slots))
    counts = even_counts(layer, tokens)
    for pi, po, n in product(
        [inputs] if inputs else sides(widest),
        [outputs] if outputs else sides(widest),
        [ports] if ports else port_counts(start.board.ports),
    ):
        bound = bind(replace(start, inputs=pi, outputs=po, ports=n))
        if bound is not None:
            yield Candidate(bound, predict(bound, counts))


def choose(found: list[Candidate]) -> Candidate:
    """The smallest of the fastest; of as many multipliers, the one with fewer ports, then the squarer one."""
    best = min(one.prediction.seconds for one in found)
    close = [one for one in found if one.prediction.seconds <= best * CLOSE]
    return min(close, key=_size)


def _size(one: Candidate) -> tuple[float, ...]:
    design = one.design
    square = max(design.inputs, design.outputs) / min(design.inputs, design.outputs)
    return (design.inputs * design.outputs, design.ports, square, one.prediction.seconds, resources(design).bram)
