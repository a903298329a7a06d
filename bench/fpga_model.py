"""The model of FPGA designs beside Edge-MoE's published figures, as tables in Markdown: `python -m bench.fpga_model`.

Edge-MoE (arXiv:2305.18691) ran M3ViT on a ZCU102: 12 layers of 129 tokens of 192 numbers, every other one with 16
experts of 384 of which a token has 2, in 16-bit fixed point.  Published: 34.64 ms in all, of which 12.12 ms are the
linear parts and the experts.  What is printed here is modelled; nothing was run on a board.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from moec.backends.hls.board import find_board
from moec.fixed.design import Design, Memory, Order
from moec.fixed.model.kernel import resources
from moec.fixed.model.search import candidates, choose
from moec.fixed.model.timing import predict
from moec.fixed.model.traffic import even_counts, port_bytes
from moec.fixed.spec import Activation, Expert, Layer, Router, Score, Weights

TOKENS, WIDTH, HIDDEN, DENSE = 129, 192, 384, 768
LAYERS = 12
PUBLISHED = 12.12
"""Milliseconds of the linear parts and the experts."""

LAYER = Layer(
    name="EdgeMoE",
    width=WIDTH,
    experts=16,
    router=Router(Score.SOFTMAX, "chosen", False, False, 2, False, 1.0, 2),
    routed=Expert(HIDDEN, Activation.GELU, False, True),
    shared=0,
    common=None,
    weights=Weights.FIXED16,
)


def design(weights: Weights, ports: int, multipliers: int = 0) -> Design:
    """The layer with these weights through so many ports: 16 x 16 multipliers, or those that are fastest."""
    layer = replace(LAYER, weights=weights)
    board = find_board("zcu102")
    bram = Memory.BRAM
    start = Design(layer, board, 16, 16, ports, 128, TOKENS, Order.EXPERT, bram, bram, bram)
    side = 16 if multipliers == 256 else 0
    return choose(list(candidates(start, side, side, ports))).design


def dense(made: Design) -> float:
    """Milliseconds of the linears that are no experts': four of attention, and two of every other layer."""
    shapes = [(WIDTH, WIDTH)] * (4 * LAYERS) + [(WIDTH, DENSE), (DENSE, WIDTH)] * (LAYERS // 2)
    cycles = 0.0
    for inputs, outputs in shapes:
        array = TOKENS * inputs * outputs / (made.inputs * made.outputs)
        ports = inputs * outputs * made.layer.weights.bits / 8 / port_bytes(made)
        cycles += max(array, ports)
    return cycles / made.board.clock * 1e3


def experts(made: Design) -> float:
    """Milliseconds of all layers with experts, routers and transfers of rows included."""
    return LAYERS // 2 * predict(made, even_counts(made.layer, TOKENS)).seconds * 1e3


def beside_published() -> Iterator[str]:
    yield "| | linears | experts | together | published |"
    yield "|---|---|---|---|---|"
    for order in (Order.EXPERT, Order.TOKEN):
        made = replace(design(Weights.FIXED16, 1, 256), order=order)
        parts = dense(made), experts(made)
        said = f"{PUBLISHED} ms" if order is Order.EXPERT else ""
        yield f"| {order.value}-major | {parts[0]:.2f} ms | {parts[1]:.2f} ms | {sum(parts):.2f} ms | {said} |"


def alternatives() -> Iterator[str]:
    yield "| weights | ports | 256 multipliers | array that is fastest | linears and experts with it | DSP |"
    yield "|---|---|---|---|---|---|"
    for weights in (Weights.FIXED16, Weights.INT8, Weights.INT4, Weights.TERNARY):
        for ports in (1, 2, 4):
            fixed, best = design(weights, ports, 256), design(weights, ports)
            times = [f"{dense(one) + experts(one):.2f} ms" for one in (fixed, best)]
            array = f"{best.inputs} × {best.outputs}"
            yield f"| {weights.value} | {ports} | {times[0]} | {array} | {times[1]} | {resources(best).dsp:,} |"


def main() -> None:
    print("\n".join([*beside_published(), "", *alternatives()]))


if __name__ == "__main__":
    main()
