"""What becomes of a sum: requantisation, activation, product with the gate, the code of the hidden layer."""

from __future__ import annotations

from moec.backends.hls.rtl.memory import Library
from moec.backends.hls.rtl.netlist import Module, Net, Port
from moec.fixed.arithmetic import MULTIPLIER_BITS, WIDE
from moec.fixed.design import Memory
from moec.fixed.model.tile import SHIFT_BITS
from moec.fixed.tables import ENTRIES, ENTRY_BITS, STEP_BITS

PIECE = 26
"""Unsigned bits that the 27-bit signed port of a multiplier takes; numbers with more take two multipliers."""
FRACTION = WIDE - 1 - STEP_BITS


def limited(m: Module, value: Net, bits: int) -> Net:
    """The nearest number in the symmetric range of `bits` bits."""
    most = (1 << (bits - 1)) - 1
    over, under = value.greater(most), value.less(-most)
    inside = m.choose(under, m.constant(-most, bits), value.bits(0, bits))
    return m.choose(over, m.constant(most, bits), inside)


def requantised(m: Module, value: Net, multiplier: Net, shift: Net, widths: tuple[int, ...]) -> list[Net]:
    """round(value * multiplier / 2^shift) limited to each of the widths, five cycles after its (registered) inputs."""
    narrow = value.width <= PIECE + 1
    whole = value.width + MULTIPLIER_BITS
    factor = multiplier.unsigned(MULTIPLIER_BITS + 1)
    if narrow:
        product = m.register(m.register(value.signed(whole) * factor.unsigned(whole)))
    else:
        width = PIECE + MULTIPLIER_BITS + 1
        low = m.register(value.bits(0, PIECE).unsigned(width) * factor.unsigned(width))
        above = value.bits(PIECE, value.width - PIECE)
        high = m.register(above.signed(whole - PIECE) * factor.unsigned(whole - PIECE))
        carried = high + low.bits(PIECE, width - PIECE).unsigned(whole - PIECE)
        product = m.register(m.join(carried, low.bits(0, PIECE)))
    # Rounding to the nearest is shifting by one place less, adding one, and halving.
    less = m.delay(shift - 1, 2)
    coarse = m.register(product >> m.join(less.bits(4, 2), m.constant(0, 4)).unsigned(whole))
    fine = m.register(coarse >> m.register(less.bits(0, 4)).unsigned(whole))
    up = (fine.signed(whole + 1) + 1).bits(1, whole)
    return [m.register(limited(m, up, bits)) for bits in widths]


def requantise(sum_bits: int, bias_bits: int, widths: tuple[int, ...]) -> Module:
    """A sum and its channel's record to a number of each of the widths, six cycles later."""
    record = MULTIPLIER_BITS + SHIFT_BITS + bias_bits
    m = Module("moec_requantise", [Port("sum", sum_bits), Port("record", record)])
    parts = m.input("record")
    bias = parts.bits(MULTIPLIER_BITS + SHIFT_BITS, bias_bits)
    total = m.register(m.input("sum") + bias.signed(sum_bits))
    multiplier = m.register(parts.bits(0, MULTIPLIER_BITS))
    shift = m.register(parts.bits(MULTIPLIER_BITS, SHIFT_BITS))
    for bits, net in zip(widths, requantised(m, total, multiplier, shift, widths), strict=True):
        m.output(f"value{bits}", net)
    return m


def hidden(value_bits: int, code_bits: int) -> Module:
    """What the activation gave to a code of the hidden layer, six cycles later."""
    m = Module("moec_hidden", [Port("value", value_bits), Port("scalars", MULTIPLIER_BITS + SHIFT_BITS)])
    scalars = m.register(m.input("scalars"))
    multiplier, shift = scalars.bits(0, MULTIPLIER_BITS), scalars.bits(MULTIPLIER_BITS, SHIFT_BITS)
    (code,) = requantised(m, m.register(m.input("value")), multiplier, shift, (code_bits,))
    m.output("code", code)
    return m


def relu(m: Module, value: Net) -> Net:
    return m.choose(value.sign, m.constant(0, value.width), value)


def rectify() -> Module:
    """ReLU, a cycle later."""
    m = Module("moec_activation", [Port("value", WIDE)])
    m.output("result", m.register(relu(m, m.input("value"))))
    return m


def activation(library: Library) -> Module:
    """relu(r) - delta(|r|), four cycles later; delta stands in a table that is written through the other ports."""
    entry = 2 * ENTRY_BITS
    ports = [Port("value", WIDE), Port("we", 1), Port("waddr", STEP_BITS), Port("wdata", entry)]
    m = Module("moec_activation", ports)
    value = m.input("value")
    size = m.choose(value.sign, m.constant(0, WIDE) - value, value)
    index, fraction = size.bits(FRACTION, STEP_BITS), size.bits(0, FRACTION)
    table = library.ram(Memory.BRAM, ENTRIES, entry)
    writes = {name: m.input(name) for name in ("we", "waddr", "wdata")}
    read = m.instance(table, "table", {**writes, "raddr": index})["rdata"]
    base, step = m.register(read.bits(0, ENTRY_BITS)), m.register(read.bits(ENTRY_BITS, ENTRY_BITS))
    width = ENTRY_BITS + FRACTION + 1
    product = m.register(step.signed(width) * m.delay(fraction, 2).unsigned(width))
    whole = m.join(m.register(base), m.constant(0, FRACTION)).unsigned(width + 1) + product.signed(width + 1)
    places = FRACTION + 2
    delta = (whole + (1 << (places - 1))).bits(places, WIDE)
    m.output("result", m.register(m.delay(relu(m, value), 3) - delta))
    return m
