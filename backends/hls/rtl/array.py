"""The array: PI numbers of a row times PI x PO weights each cycle, summed up over the steps of a tile."""

from __future__ import annotations

from moec.backends.hls.rtl.netlist import Module, Net, Port
from moec.fixed.design import Design
from moec.fixed.limits import ACCUMULATOR_BITS
from moec.fixed.model.geometry import paired
from moec.fixed.spec import Weights

FIELD = 18
"""Where the second of two products begins that share a multiplier, one weight times 2^18 beside the other."""

PACKED = 8
"""Most products of 8-bit numbers that can be summed up before the two are taken apart: 8 * 127 * 128 < 2^17."""


def _sum(m: Module, terms: list[Net], most: int) -> list[Net]:
    """One level after another of adders in pairs, each registered, until no more than `most` terms are left."""
    while len(terms) > most:
        width = terms[0].width + 1
        terms = [m.register(a.signed(width) + b.signed(width)) for a, b in zip(terms[::2], terms[1::2], strict=True)]
    return terms


def _total(m: Module, value: Net, first: Net, valid: Net, name: str, bits: int) -> Net:
    """The running sum, which begins again at `first` and changes only where `valid`."""
    total = m.state(name, bits, None)
    before = m.choose(first, m.constant(0, bits), total)  # in front of the adder, whose look-up tables take it in
    m.drive(total, m.choose(valid, value.signed(bits) + before, total))
    return total


def pair(inputs: int, weight_bits: int, sum_bits: int) -> Module:
    """Two output channels of 8-bit rows, whose products share a DSP block's multiplier.

    x   operands, registered; w0, w1 come with them, not yet registered.
    """
    ports = [Port("x", inputs * 8), Port("w0", inputs * weight_bits), Port("w1", inputs * weight_bits)]
    m = Module("moec_pair", [*ports, Port("first", 1), Port("valid", 1)])
    width = FIELD + weight_bits + 1  # both weights may be the most negative number
    products = []
    both = zip(m.input("x").parts(8), m.input("w0").parts(weight_bits), m.input("w1").parts(weight_bits), strict=True)
    for x, low, high in both:
        weights = m.register(m.join(high, m.constant(0, FIELD)).signed(width) + low.signed(width))
        products.append(m.register(x.signed(width + 8) * weights.signed(width + 8)))
    sums = _sum(m, products, max(1, inputs // (PACKED << (8 - weight_bits))))
    lower = [m.register(value.bits(0, FIELD)) for value in sums]
    rest = sums[0].width - FIELD
    upper = [m.register(value.bits(FIELD, rest) + value.bits(FIELD - 1, 1).unsigned(rest)) for value in sums]
    for name, fields in (("sum0", lower), ("sum1", upper)):
        (value,) = _sum(m, fields, 1)
        m.output(name, _total(m, value, m.input("first"), m.input("valid"), f"{name}_held", sum_bits))
    return m


def single(inputs: int, row_bits: int, weight_bits: int, sum_bits: int) -> Module:
    """One output channel, each product in a DSP block of its own."""
    ports = [Port("x", inputs * row_bits), Port("w", inputs * weight_bits), Port("first", 1), Port("valid", 1)]
    m = Module("moec_single", ports)
    width = row_bits + weight_bits
    products = []
    for x, w in zip(m.input("x").parts(row_bits), m.input("w").parts(weight_bits), strict=True):
        products.append(m.register(x.signed(width) * m.register(w).signed(width)))
    (value,) = _sum(m, products, 1)
    m.output("sum", _total(m, value, m.input("first"), m.input("valid"), "sum_held", sum_bits))
    return m


def ternary(inputs: int, sum_bits: int) -> Module:
    """One output channel of 8-bit rows and weights -1, 0 and 1: nothing is multiplied.

    x, negative   operands and their negatives, registered; w comes with them, not yet registered.
    """
    ports = [Port("x", inputs * 8), Port("negative", inputs * 8), Port("w", inputs * 2)]
    m = Module("moec_ternary", [*ports, Port("first", 1), Port("valid", 1)])
    zero = m.constant(0, 8)
    terms = []
    numbers = zip(*(m.input(name).parts(width) for name, width in (("x", 8), ("negative", 8), ("w", 2))), strict=True)
    for x, negative, w in numbers:
        code = m.register(w)
        signed = m.choose(code.sign, negative, x)
        terms.append(m.register(m.choose(code.bits(0, 1), signed, zero)))
    (value,) = _sum(m, terms, 1)
    m.output("sum", _total(m, value, m.input("first"), m.input("valid"), "sum_held", sum_bits))
    return m


def array(design: Design, x: Net, w: Net, first: Net, valid: Net, columns: Module, m: Module) -> list[Net]:
    """PO sums, from the operands of a step: `x` of PI numbers and `w` of PI x PO weights, both read in this cycle."""
    bits = design.layer.weights.bits
    row = design.inputs * bits
    weights = w.parts(row)
    now = {"x": m.register(x), "first": first, "valid": valid}
    if design.layer.weights is Weights.TERNARY:
        zero = m.constant(0, 8)
        now["negative"] = m.register(m.pack([zero - part for part in x.parts(8)]))
        return [m.instance(columns, f"column_{i}", {**now, "w": each})["sum"] for i, each in enumerate(weights)]
    if paired(design):
        sums = []
        for i in range(0, design.outputs, 2):
            both = m.instance(columns, f"columns_{i}", {**now, "w0": weights[i], "w1": weights[i + 1]})
            sums += [both["sum0"], both["sum1"]]
        return sums
    return [m.instance(columns, f"column_{i}", {**now, "w": each})["sum"] for i, each in enumerate(weights)]


def column(design: Design) -> Module:
    """The module that an array is made of."""
    layer, bits = design.layer, ACCUMULATOR_BITS[design.layer.weights]
    if layer.weights is Weights.TERNARY:
        return ternary(design.inputs, bits)
    if paired(design):
        return pair(design.inputs, layer.weights.bits, bits)
    return single(design.inputs, layer.rows, layer.weights.bits, bits)
