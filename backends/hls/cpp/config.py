"""`src/config.h`: a design's sizes as constants, and `src/tables.h`: the functions that a router reads in tables."""

from __future__ import annotations

from math import ceil

from moec.fixed.arithmetic import gate_fraction, gate_multiplier
from moec.fixed.design import Design, Order
from moec.fixed.layout import layout, padded
from moec.fixed.limits import ACCUMULATOR_BITS
from moec.fixed.model.geometry import lanes
from moec.fixed.spec import Activation, Expert, Score, Weights
from moec.fixed.tables import ENTRIES, Table, exp2_table, sigmoid_table

Groups = list[tuple[str, list[tuple[str, int | bool, str]]]]


def queue_length(design: Design) -> int:
    """Items of all queues: of experts, in whose place those of tasks are before, and of every token."""
    return (design.layer.router.slots + 1) * design.tokens


def visits(design: Design) -> int:
    """The most sections that are read in one phase: of gates and of the table, or of experts."""
    layer = design.layer
    if design.order is Order.EXPERT:
        most = layer.experts + layer.shared
    else:
        most = design.tokens * (layer.router.slots + layer.shared)
    return max(most, layer.router.tasks + 1)


def header(design: Design) -> str:
    """`src/config.h`."""
    lines = [f"// {design.layer.name} on {design.board.name}: every size that the sources depend on.", "#pragma once"]
    for title, constants in _constants(design):
        lines += ["", f"// {title}"]
        for name, value, note in constants:
            kind = "bool" if isinstance(value, bool) else "int"
            text = str(value).lower()
            lines.append(f"constexpr {kind} {name} = {text};" + (f"  // {note}" if note else ""))
    mantissa, shift = gate_multiplier(design.layer.router)
    lines += [
        "",
        "// Makes an expert's weight of its share: multiplier in bits 0-16, shift in 17-22.",
        f"constexpr unsigned long long FACTOR_RECORD = {mantissa | shift << 17}ULL;",
    ]
    return "\n".join(lines) + "\n"


def tables(design: Design) -> str | None:
    """`src/tables.h`; None where the router needs no function."""
    score = design.layer.router.score
    if score is Score.IDENTITY:
        return None
    if score is Score.SOFTMAX:
        return _table("EXP2", exp2_table(), "2^f - 1 for f in [0, 1), 18 fraction bits")
    return _table("SIGMOID", sigmoid_table(), "the sigmoid of -x for x in [0, 16), 18 fraction bits")


def _table(name: str, table: Table, said: str) -> str:
    words = [f"{int(word):#x}," for word in table.words()]
    rows = [" ".join(words[first : first + 8]) for first in range(0, ENTRIES, 8)]
    body = "\n".join(f"    {row}" for row in rows)
    return (
        f"// Entries in bits 0-17, the step to the next one in bits 18-35: {said}.\n#pragma once\n\n"
        f'#include "arithmetic.h"\n\nstatic const unsigned long long {name}[{ENTRIES}] = {{\n{body}\n}};\n'
    )


def _constants(design: Design) -> Groups:
    layer, router, where = design.layer, design.layer.router, layout(design)
    fixed16 = layer.weights is Weights.FIXED16
    router_bits = 16 if fixed16 else 8
    common = layer.common or Expert(0, layer.routed.activation, False, False)
    row_tiles = ceil(layer.width / design.inputs)
    hidden_tiles = [ceil(shape.hidden / design.inputs) for shape in (layer.routed, common)]
    digits = router_bits // layer.weights.bits
    panel = max(row_tiles * digits, *hidden_tiles)
    finish = design.outputs // lanes(design)
    firsts = [_first_groups(design, shape) for shape in (layer.routed, common)]
    second = ceil(layer.width / design.outputs)
    fewest = min(row_tiles, *(tiles for tiles in hidden_tiles if tiles))
    wide = max(design.inputs, design.outputs)
    per_token = design.order is Order.TOKEN
    routers_experts = padded(layer.experts, design.outputs)
    return [
        (
            "The layer",
            [
                ("WIDTH", layer.width, "numbers of a token"),
                ("EXPERTS", layer.experts, ""),
                ("SLOTS", router.slots, "experts of a token"),
                ("TASKS", router.tasks, "gates, of which a token's task chooses one"),
                ("SHARED", layer.shared, "experts that see every token"),
                ("GATED", layer.routed.gated, ""),
                ("COMMON_GATED", common.gated, "of the shared experts"),
                ("HAS_TABLE", layer.routed.activation is not Activation.RELU, "of the activation"),
                ("HAS_SELECTION", router.selection, "numbers that are added for the choice"),
                (
                    "OVER_CHOSEN",
                    router.renorm or router.over == "chosen",
                    "they alone are in the divisor",
                ),
                ("RENORM", router.renorm, ""),
                ("FACTOR_FRACTION", gate_fraction(router), "fraction bits of what results are multiplied with"),
            ],
        ),
        (
            "Bits",
            [
                ("ROW_BITS", layer.rows, ""),
                ("WEIGHT_BITS", layer.weights.bits, "of experts"),
                ("ROUTER_BITS", router_bits, "of a router's weights"),
                ("DIGITS", digits, "of a router's weight, in as many turns of the array"),
                ("DIGIT_BITS", layer.weights.bits + (digits > 1), "of a weight in the array; digits have no sign"),
                ("ACCUMULATOR_BITS", ACCUMULATOR_BITS[layer.weights], ""),
                ("TOKEN_BITS", max(1, (design.tokens - 1).bit_length()), ""),
                ("EXPERT_BITS", max(1, (layer.experts - 1).bit_length()), ""),
            ],
        ),
        (
            "The array and the ports",
            [
                ("INPUTS", design.inputs, "numbers of a row a cycle"),
                ("OUTPUTS", design.outputs, "channels a cycle"),
                ("LANES", lanes(design), "channels that are requantised a cycle"),
                ("FINISH_CYCLES", finish, "that they take for OUTPUTS"),
                ("PORTS", design.ports, ""),
                ("PORT_BITS", design.port_bits, ""),
                ("BEAT_BITS", where.beat_bits, "what all ports give in a cycle"),
                ("TOKENS", design.tokens, "of a call, at most"),
                ("EXPERT_MAJOR", not per_token, "each expert's weights are read once"),
            ],
        ),
        (
            "Panels: the weights of OUTPUTS channels, in tiles of INPUTS numbers",
            [
                ("ROW_TILES", row_tiles, "of a linear that reads tokens"),
                ("HIDDEN_TILES", hidden_tiles[0], "of a linear behind the hidden layer"),
                ("COMMON_HIDDEN_TILES", hidden_tiles[1], ""),
                ("PANEL_TILES", panel, "of the longest"),
                ("FEWEST_CYCLES", max(fewest, finish), "from a row of the shortest panel to the next"),
                ("PANEL_CYCLES", max(panel, finish) * (design.tokens + 1), ""),
                ("ROUTER_GROUPS", routers_experts // design.outputs, "panels of a router"),
                ("FIRST_GROUPS", firsts[0], "that lead to the hidden layer"),
                ("COMMON_FIRST_GROUPS", firsts[1], ""),
                ("SECOND_GROUPS", second, "behind it"),
                ("RECORD_GROUPS", max(routers_experts // design.outputs, *(n + second for n in firsts)), ""),
            ],
        ),
        (
            "Memory of weights, in beats (docs/fpga-arithmetic.md of moec)",
            [
                ("TABLE_BEATS", where.table.beats, ""),
                ("ROUTER_BEATS", where.gate.beats, ""),
                ("EXPERT_BEATS", where.expert.beats, ""),
                ("COMMON_BEATS", where.common.beats if where.common else 0, ""),
                ("FIRST_ROUTER", where.gates, ""),
                ("FIRST_EXPERT", where.experts, ""),
                ("FIRST_COMMON", where.shared, ""),
                ("MEMORY_BEATS", where.beats, "in all"),
                ("INPUT_WORDS", where.input_words, "of a token"),
                ("OUTPUT_WORDS", where.output_words, "of a token"),
            ],
        ),
        (
            "Buffers",
            [
                ("ROW_LENGTH", where.input_words * design.port_bits // layer.rows, ""),
                ("HIDDEN_ROWS", 1 if per_token else design.tokens, ""),
                ("HIDDEN_LENGTH", padded(max(layer.routed.hidden, common.hidden), wide), ""),
                ("LOGIT_LENGTH", routers_experts, ""),
                ("TOTAL_LENGTH", where.output_words * design.port_bits // 16, ""),
                ("QUEUE_LENGTH", queue_length(design), ""),
                ("EVERY_TOKEN", queue_length(design) - design.tokens, "where the queue of all tokens begins"),
                ("VISITS", visits(design), "of sections of the memory of weights, at most"),
            ],
        ),
    ]


def _first_groups(design: Design, shape: Expert) -> int:
    return (2 if shape.gated else 1) * ceil(shape.hidden / design.outputs)
