"""What the compute tile takes of an UltraScale+ device; what Yosys makes of the generated RTL is compared with it.

`synth_xilinx -family xcup` of Yosys 0.70 was the measure.  DSP blocks and memories follow from how the tile is built.
Look-up tables are those of its adders and multiplexers, with factors of lanes and control that were fitted to small
designs; registers are a share of them.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log2

from moec.fixed.arithmetic import LOGIT_BITS, MULTIPLIER_BITS, SCORE_FRACTION, WIDE, gate_multiplier
from moec.fixed.design import Design, Memory
from moec.fixed.limits import ACCUMULATOR_BITS
from moec.fixed.model import tile
from moec.fixed.model.blocks import blocks
from moec.fixed.model.choice import chooses, sums_up
from moec.fixed.model.geometry import gated, groups, lanes, paired, routes, sum_bits
from moec.fixed.model.resources import Resources, lane_multipliers, multipliers
from moec.fixed.spec import Score, Weights
from moec.fixed.tables import ENTRIES, ENTRY_BITS

BLOCK_WORDS = 512
"""Words of a block RAM that is as wide as can be, 72 bits.  Deeper memories are of narrower blocks, as far as they have
as many words, and choose between them: about two more address bits take a look-up table for each bit that is read."""
FIELD = 18
"""Bits below the second of two products that share a multiplier."""
PACKED = 8
"""Most packed products of 8-bit weights that are summed up before the two are taken apart."""
SHIFT = 5.0
"""Look-up tables a bit of a product that is shifted by up to 47 places and rounded."""
LIMIT = 40
TABLE = 65
SUM = 3.5
"""Look-up tables a bit of a weighted sum: added up, cleared, rounded, limited."""
SUM_BITS = 27
"""Bits of a power of two with 25 fraction bits."""
SHIFTED, RUNNING, DIVIDED = 3, 7, 5
"""Look-up tables a bit of a sum of powers: shifted, added up while logits pass, divided by."""
CONTROL = 200
REGISTERS = 1.4
"""Registers a look-up table: most of what is computed is registered."""


def memories(design: Design) -> dict[str, Resources]:
    """The tile's buffers; multiplexers behind those that are read in smaller words than they are written."""
    side = lanes(design)
    shapes = {
        "weights": (design.weights_in, tile.weights(design)),
        "rows": (design.rows_in, tile.rows(design)),
        "channels": (None, tile.channels(design)),
        "hidden": (None, tile.hidden(design)),
        "sums": (None, tile.sums(design)),
    }
    made = {name: _memory(shape, memory or tile.memory_for(shape)) for name, (memory, shape) in shapes.items()}
    if chooses(design):
        made["logits"] = _memory(tile.logits(design), tile.memory_for(tile.logits(design)))
    if gated(design):
        made["gate_values"] = blocks(Memory.LUTRAM, side * WIDE, max(2, groups(design)))
    if tile.has_table(design):
        one = blocks(Memory.BRAM, 2 * ENTRY_BITS, ENTRIES)
        made["tables"] = Resources(0, one.bram * side, 0, 0, 0)
    return made


def _memory(shape: tile.Shape, memory: Memory) -> Resources:
    one = blocks(memory, shape.width, shape.depth)
    select = shape.read * ceil((shape.write // shape.read - 1) / 3) if shape.write > shape.read else 0
    deep = ceil(shape.depth / BLOCK_WORDS)
    if memory is Memory.BRAM and deep > 1:
        select += round(shape.many * shape.width * max(1.0, log2(deep) / 2))
    return Resources(0, one.bram * shape.many, one.uram * shape.many, one.lut * shape.many + select, 0)


def _adders(width: int, terms: int, least: int) -> tuple[int, int]:
    """Look-up tables of a tree from so many terms of a width down to `least`, and the width of what is left."""
    total = 0
    while terms > least:
        terms, width = terms // 2, width + 1
        total += terms * width
    return total, width


def array(design: Design) -> Resources:
    """Products, their sums, and the accumulators."""
    bits, weights = ACCUMULATOR_BITS[design.layer.weights], design.layer.weights.bits
    if design.layer.weights is Weights.TERNARY:
        tree, _ = _adders(8, design.inputs, 1)
        lut = design.outputs * (8 * design.inputs + tree + bits) + 8 * design.inputs
    elif paired(design):
        left = max(1, design.inputs // (PACKED << (8 - weights)))
        tree, width = _adders(FIELD + weights + 9, design.inputs, left)
        apart = left * (width - FIELD) + _adders(FIELD, left, 1)[0] + _adders(width - FIELD, left, 1)[0]
        lut = design.outputs // 2 * (design.inputs * (weights + 1) + tree + apart + 2 * bits)
    else:
        tree, _ = _adders(design.layer.rows + weights, design.inputs, 1)
        lut = design.outputs * (tree + bits)
    return Resources(multipliers(design), 0, 0, lut, 0)


def router(design: Design) -> Resources:
    """The choice of experts: a sorted list, a sum of powers, a divider, the scale's adders."""
    spec, bits = design.layer.router, SUM_BITS + (design.layer.experts - 1).bit_length()
    power, divides = spec.score is Score.SOFTMAX, spec.score is Score.SOFTMAX or spec.renorm
    entry = 2 * LOGIT_BITS + tile.address_bits(design.layer.experts)
    lut = 2 * spec.slots * entry + 100
    if power:
        lut += SHIFTED * bits + (0 if sums_up(spec) else RUNNING * bits)
    if divides:
        lut += DIVIDED * bits
    factor, _ = gate_multiplier(spec)
    lut += (factor.bit_count() - 1) * (SCORE_FRACTION + MULTIPLIER_BITS)
    table = spec.score is not Score.IDENTITY
    return Resources(int(table), blocks(Memory.BRAM, 2 * ENTRY_BITS, ENTRIES).bram if table else 0, 0, lut, 0)


def lane_luts(design: Design) -> int:
    """Look-up tables of a lane: two requantisations, activation, the weighted sum and its rounding."""
    product = ACCUMULATOR_BITS[design.layer.weights] + MULTIPLIER_BITS
    code = (2 * WIDE if gated(design) else WIDE) + MULTIPLIER_BITS
    first = SHIFT * product + LIMIT * (2 if routes(design) else 1)
    second = SHIFT * code + LIMIT
    table = TABLE if tile.has_table(design) else 0
    return round(first + second + table + SUM * sum_bits(design))


def parts(design: Design) -> dict[str, Resources]:
    """What each part of the tile takes."""
    side, bits = lanes(design), ACCUMULATOR_BITS[design.layer.weights]
    hold = design.outputs * bits if groups(design) > 1 else 0
    operands = design.inputs * design.layer.rows
    return {
        "array": array(design),
        "lanes": Resources(side * lane_multipliers(design), 0, 0, side * lane_luts(design), 0),
        "control": Resources(0, 0, 0, hold + operands + CONTROL, 0),
        **({"router": router(design)} if chooses(design) else {}),
        **memories(design),
    }


def total(design: Design) -> Resources:
    """What the tile takes in all."""
    result = Resources(0, 0, 0, 0, 0)
    for part in parts(design).values():
        result += part
    return replace(result, ff=round(REGISTERS * result.lut))
