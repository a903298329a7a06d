"""From a step's addresses to the results: operands, array, lanes, the hidden layer, weighted sums."""

from __future__ import annotations

from moec.backends.hls.rtl import lane
from moec.backends.hls.rtl.array import array, column
from moec.backends.hls.rtl.control import GATE_VALUE, HIDDEN, LOGIT, RESULT, Control, by_kind
from moec.backends.hls.rtl.loader import Loaded, count
from moec.backends.hls.rtl.memory import Library, buffer
from moec.backends.hls.rtl.netlist import Module, Net
from moec.backends.hls.rtl.router import router
from moec.fixed.arithmetic import LOGIT_BITS, WIDE, gate_fraction
from moec.fixed.design import Design, Memory
from moec.fixed.limits import ACCUMULATOR_BITS, BIAS_BITS
from moec.fixed.model import geometry
from moec.fixed.model import tile as plan
from moec.fixed.model.choice import chooses
from moec.fixed.model.tile import Shape, address_bits, memory_for


def datapath(
    m: Module, library: Library, design: Design, loaded: Loaded, c: Control, start: tuple[Net, Net]
) -> list[Module]:
    """Adds all of it to the tile; gives the modules that it made instances of.

    start  the choice of experts is to begin, and for how many tokens
    """
    word = m.wire("hidden_word", geometry.lanes(design) * design.layer.rows)
    valid, address = m.wire("hidden_write", 1), m.wire("hidden_to", 16)
    columns = column(design)
    sums = _sums(m, library, design, columns, loaded, c, (valid, address, word))
    records, held, step, places = _drain(m, library, design, loaded, c, sums)
    modules = [columns]

    widths = (WIDE, LOGIT_BITS) if geometry.routes(design) else (WIDE,)
    requantise = lane.requantise(ACCUMULATOR_BITS[design.layer.weights], BIAS_BITS[design.layer.weights], widths)
    modules.append(requantise)
    given = [
        m.instance(requantise, f"requantise_{i}", {"sum": total, "record": record})
        for i, (total, record) in enumerate(zip(held, records, strict=True))
    ]
    values = [each[f"value{WIDE}"] for each in given]
    modes = [m.delay(step[1] & step[0].eq(i), geometry.REQUANTISE) for i in (GATE_VALUE, HIDDEN, RESULT, LOGIT)]
    if geometry.routes(design):
        logits = m.pack(each[f"value{LOGIT_BITS}"] for each in given)
        m.output("logits_valid", modes[LOGIT])
        m.output("logits", logits)
        if chooses(design):
            modules += _choice(m, library, design, modes[LOGIT], m.delay(places, geometry.REQUANTISE), logits, start)
    modules += _hidden(m, library, design, loaded, c, values, modes, (valid, address, word))
    _weighted(m, library, design, c, values, modes)
    return modules


def _sums(
    m: Module, library: Library, design: Design, columns: Module, loaded: Loaded, c: Control, code: tuple[Net, Net, Net]
) -> list[Net]:
    """The array's sums, and the memories that its operands are read from."""
    write, to, words = loaded.weights
    weights = buffer(m, library, design.weights_in, plan.weights(design), "weights", write, to, words, c.tile)
    rows = buffer(
        m,
        library,
        design.rows_in,
        plan.rows(design),
        "rows",
        m.input("row_write"),
        m.input("row_address"),
        m.input("row_word"),
        c.row,
    )
    shape = plan.hidden(design)
    codes = buffer(m, library, memory_for(shape), shape, "hidden", *code, c.code)
    x = m.choose(m.register(c.second), codes, rows)
    delay = geometry.READ + geometry.MULTIPLY + geometry.tree(design)
    return array(design, x, weights, m.delay(c.first, delay), m.delay(c.running, delay), columns, m)


def _drain(
    m: Module, library: Library, design: Design, loaded: Loaded, c: Control, sums: list[Net]
) -> tuple[list[Net], list[Net], tuple[Net, Net], Net]:
    """The sums of a tile, `lanes` of them a cycle, and their channels' records.

    Also what becomes of them, and whether there are any; and where they go, if they are logits.
    """
    lanes, groups = geometry.lanes(design), geometry.groups(design)
    delay = geometry.accumulated(design) - 2
    fresh = m.delay(c.last, delay)
    mode, kind, bank = (m.delay(net, delay) for net in (c.mode, c.kind, c.bank))
    restart, jump = m.delay(c.restart, delay), m.delay(c.jump, delay)

    width = sums[0].width
    together = m.pack(sums)
    held = m.state("held", together.width, None)
    shifted = held.bits(lanes * width, together.width - lanes * width).unsigned(together.width) if groups > 1 else held
    m.drive(held, m.choose(fresh, together, shifted))
    bits = groups.bit_length()
    left = m.state("held_groups", bits)
    draining = ~left.eq(0)
    m.drive(left, m.choose(fresh, m.constant(groups, bits), m.choose(draining, left - 1, left)))
    held_mode = m.state("held_mode", 2)
    m.drive(held_mode, m.choose(fresh, mode, held_mode))

    shape = plan.channels(design)
    address = address_bits(shape.read_words)
    start = m.choose(bank, m.constant(shape.read_words // 2, address), m.constant(0, address))
    down = by_kind(m, design, kind, [plan.second(shape, k.first[0]) for k in plan.kinds(design)], address)
    channel = m.state("channel", address)
    following = m.choose(draining, channel + 1, channel)
    m.drive(channel, m.choose(fresh & restart, start, m.choose(fresh & jump, start + down, following)))
    write, to, words = loaded.channels
    records = buffer(m, library, memory_for(shape), shape, "channels", write, to, words, channel)
    now = [m.register(each) for each in held.bits(0, lanes * width).parts(width)]
    place = m.state("logits_to", c.logits.width)
    origin = m.delay(c.logits, delay)
    m.drive(place, m.choose(fresh & restart, origin, m.choose(draining, place + 1, place)))
    step = (m.register(held_mode), m.register(draining))
    return records.parts(plan.record_bits(design)), now, step, m.register(place)


def _choice(
    m: Module, library: Library, design: Design, valid: Net, place: Net, logits: Net, start: tuple[Net, Net]
) -> list[Module]:
    """The logits of all tokens, and the router that reads them when they are there."""
    shape = plan.logits(design)
    modules = router(design)
    address = m.wire("logit_from", address_bits(shape.read_words))
    logit = buffer(m, library, memory_for(shape), shape, "token_logits", valid, place, logits, address)
    chosen = m.instance(modules[-1], "router", {"start": start[0], "count": start[1], "logit": logit})
    m.connect(address, chosen["address"])
    for name in ("valid", "token", "expert", "weight"):
        m.output(f"choice_{name}", chosen[name])
    return modules


def _hidden(
    m: Module,
    library: Library,
    design: Design,
    loaded: Loaded,
    c: Control,
    values: list[Net],
    modes: list[Net],
    code: tuple[Net, Net, Net],
) -> list[Module]:
    """Activation, product with the gate's value, codes of the hidden layer."""
    if loaded.table is None:
        act = lane.rectify()
        writes: dict[str, Net] = {}
    else:
        act = lane.activation(library)
        writes = dict(zip(("we", "waddr", "wdata"), loaded.table, strict=True))
    active = [m.instance(act, f"act_{i}", {"value": v, **writes})["result"] for i, v in enumerate(values)]
    delay, bits = geometry.activated(design), WIDE
    if geometry.gated(design):
        delay += geometry.GATE_PRODUCT
        active, bits = _gated(m, library, design, c, values, active, modes), 2 * WIDE
    codes = lane.hidden(bits, design.layer.rows)
    scalars = m.choose(c.bank, loaded.scalars[1], loaded.scalars[0])
    made = [
        m.instance(codes, f"hidden_code_{i}", {"value": v, "scalars": scalars})["code"] for i, v in enumerate(active)
    ]
    write, to, word = code
    m.connect(write, m.delay(modes[HIDDEN], delay + geometry.REQUANTISE))
    m.connect(word, m.pack(made))
    m.connect(to, count(m, "hidden_number", 16, write, modes[RESULT], 0))
    return [act, codes]


def _gated(
    m: Module, library: Library, design: Design, c: Control, values: list[Net], active: list[Net], modes: list[Net]
) -> list[Net]:
    """Activations of the gate's tile, which wait for those of up's, times the latter; two cycles later."""
    groups, delay = geometry.groups(design), geometry.activated(design)
    shape = Shape(max(2, groups), len(values) * WIDE, len(values) * WIDE)
    saved, used = m.delay(modes[GATE_VALUE], delay), m.delay(modes[HIDDEN], delay)
    bits = address_bits(groups)
    to = count(m, "gate_to", bits, saved, m.constant(0, 1), 0)
    of = count(m, "gate_from", bits, used, m.constant(0, 1), 0)
    if groups == 1:
        to = of = m.constant(0, 1)
    held = buffer(m, library, Memory.LUTRAM, shape, "gate_values", saved, to, m.pack(active), of).parts(WIDE)
    others = [m.delay(value, delay + 1) for value in values]
    if not all(expert.gated for expert in geometry.experts(design)):
        alone = by_kind(m, design, c.kind, [int(k.expert is None or not k.expert.gated) for k in plan.kinds(design)], 1)
        held = [m.choose(alone, m.register(a), h) for a, h in zip(active, held, strict=True)]
        others = [m.choose(alone, m.constant(1, WIDE), other) for other in others]
    return [m.register(h.signed(2 * WIDE) * other.signed(2 * WIDE)) for h, other in zip(held, others, strict=True)]


def _weighted(m: Module, library: Library, design: Design, c: Control, values: list[Net], modes: list[Net]) -> None:
    """Results times their weight, added to what the token's other experts gave; and the sums, rounded, in the end."""
    bits, shape = geometry.sum_bits(design), plan.sums(design)
    address = address_bits(shape.words)
    # All codes of a row's hidden layer come before its results, and its results before the next row's codes.
    place = count(m, "sums_at", address, modes[RESULT], modes[HIDDEN], c.base)
    weight = m.state("result_weight", c.weight.width, None)
    m.drive(weight, m.choose(modes[HIDDEN], c.weight, weight))
    product_bits = WIDE + weight.width
    factor = m.register(weight).signed(product_bits)
    products = [m.register(m.register(v).signed(product_bits) * factor) for v in values]
    write, to, word = m.wire("sums_write", 1), m.wire("sums_to", address), m.wire("sums_word", shape.write)
    read = buffer(m, library, memory_for(shape), shape, "sums", write, to, word, m.choose(c.sweeping, c.sweep, place))
    before = [m.register(each) for each in read.parts(bits)]
    after = [m.register(b + p.signed(bits)) for b, p in zip(before, products, strict=True)]
    m.connect(write, m.delay(modes[RESULT], geometry.WEIGH) | c.sweeping)
    m.connect(to, m.choose(c.sweeping, c.sweep, m.delay(place, geometry.WEIGH)))
    m.connect(word, m.choose(c.sweeping, m.constant(0, shape.write), m.pack(after)))

    fraction = gate_fraction(design.layer.router)
    rounded = [each.signed(bits + 1) + (1 << (fraction - 1)) for each in read.parts(bits)]
    kept = [each.bits(fraction, bits + 1 - fraction) for each in rounded]
    m.output("result_valid", m.delay(c.results, 2))
    m.output("result", m.pack(m.register(lane.limited(m, each, WIDE)) for each in kept))
