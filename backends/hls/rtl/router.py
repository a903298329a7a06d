"""The choice of experts: the largest logits of a token, and their weights, one token after another."""

from __future__ import annotations

from dataclasses import dataclass

from moec.backends.hls.rtl.lane import limited
from moec.backends.hls.rtl.netlist import Module, Net, Port, Rom
from moec.fixed import arithmetic
from moec.fixed.arithmetic import GATE_BITS, GUARD_BITS, LOGIT_BITS, LOGIT_FRACTION, SCORE_FRACTION
from moec.fixed.design import Design
from moec.fixed.model.choice import DIVISION, features, sums_up
from moec.fixed.model.geometry import router as router_shape
from moec.fixed.model.tile import address_bits, logits
from moec.fixed.spec import Router, Score
from moec.fixed.tables import ENTRY_BITS, SIGMOID_RANGE_BITS, STEP_BITS, Table, exp2_table, sigmoid_table

IDLE, SCAN, PREPARE, SUM, DIVIDE, FINISH, OUT = range(7)
STATE_BITS = 3
POWER_BITS = SCORE_FRACTION + 2
SCORE_BITS = SCORE_FRACTION + 1


def rom(name: str, table: Table) -> Rom:
    return Rom(name, STEP_BITS, 2 * ENTRY_BITS, [int(word) for word in table.words()])


def _interpolated(m: Module, table: Rom, position: Net, places: int) -> Net:
    """round(TABLE(position)): four cycles after the position, which has `places` fraction bits."""
    read = m.instance(table, "table", {"address": position.bits(places, STEP_BITS)})["entry"]
    base, step = m.register(read.bits(0, ENTRY_BITS)), m.register(read.bits(ENTRY_BITS, ENTRY_BITS))
    width = ENTRY_BITS + places + 2
    product = m.register(step.signed(width) * m.delay(position.bits(0, places), 2).unsigned(width))
    whole = m.join(m.register(base), m.constant(0, places)).unsigned(width) + product
    return m.register((whole + (1 << (places + 1))).bits(places + 2, width - places - 2)).unsigned(POWER_BITS)


def _payload(m: Module, score: Score, logit: Net, tables: list[Module]) -> Net:
    """What a weight is made of, beside the logit: `features` cycles after the logit."""
    if score is Score.IDENTITY:
        return m.register(logit)
    kept = m.register(logit)
    if score is Score.SOFTMAX:
        table = rom("moec_exp2", exp2_table())
        tables.append(table)
        part = _interpolated(m, table, kept.bits(0, LOGIT_FRACTION), LOGIT_FRACTION - STEP_BITS)
        return part + (1 << SCORE_FRACTION)
    table = rom("moec_sigmoid", sigmoid_table())
    tables.append(table)
    bits = SIGMOID_RANGE_BITS + LOGIT_FRACTION
    size = m.choose(logit.sign, m.constant(0, LOGIT_BITS) - logit, logit)
    most = m.constant((1 << bits) - 1, LOGIT_BITS)
    position = m.register(m.choose(size.greater(most), most, size)).bits(0, bits)
    below = _interpolated(m, table, position, bits - STEP_BITS).bits(0, SCORE_BITS)
    return m.choose(m.delay(kept.sign, 4), below, m.constant(1 << SCORE_FRACTION, SCORE_BITS) - below)


@dataclass(frozen=True)
class Entry:
    """One of the largest logits so far; states, whose next values `_list` says."""

    valid: Net
    logit: Net
    expert: Net
    payload: Net

    @property
    def fields(self) -> tuple[Net, Net, Net, Net]:
        return self.valid, self.logit, self.expert, self.payload


def _list(m: Module, slots: int, new: Entry, clear: Net, turn: Net) -> list[Entry]:
    """The largest logits, in order: a new one moves those below it, of equal ones the first stays in front."""
    widths = [net.width for net in new.fields]
    entries = []
    for slot in range(slots):
        names = [f"slot_{slot}_{name}" for name in ("valid", "logit", "expert", "payload")]
        fields = [
            m.state(name, w, 0 if i == 0 else None) for i, (name, w) in enumerate(zip(names, widths, strict=True))
        ]
        entries.append(Entry(*fields))
    above = [new.valid & (~entry.valid | new.logit.greater(entry.logit)) for entry in entries]
    for slot, entry in enumerate(entries):
        before, behind = entries[slot - 1] if slot else new, entries[(slot + 1) % slots]
        moved = above[slot - 1] if slot else m.constant(0, 1)
        for i, field in enumerate(entry.fields):
            inserted = m.choose(moved, before.fields[i], new.fields[i])
            following = m.choose(above[slot], inserted, m.choose(turn, behind.fields[i], field))
            m.drive(field, m.choose(clear, m.constant(0, 1), following) if i == 0 else following)
    return entries


def _running_sum(m: Module, valid: Net, logit: Net, power: Net, clear: Net, total: Net) -> Net:
    """The next sum of powers of a softmax, relative to the largest integer part so far."""
    bits = total.width
    some, largest = m.state("some", 1), m.state("largest", LOGIT_BITS - LOGIT_FRACTION + 1, None)
    whole = logit.bits(LOGIT_FRACTION, LOGIT_BITS - LOGIT_FRACTION).signed(largest.width)
    larger = ~some | whole.greater(largest)
    places = m.choose(larger, whole - largest, largest - whole).unsigned(bits)
    mine = m.join(power, m.constant(0, GUARD_BITS)).unsigned(bits)
    down = m.choose(larger, total, mine).down(places)
    added = m.choose(larger, mine, total) + m.choose(some, down, m.constant(0, bits))
    m.drive(some, ~clear & (valid | some))
    m.drive(largest, m.choose(valid & larger, whole, largest))
    return m.choose(valid, added, total)


def router(design: Design) -> list[Module]:
    """The modules, the last of which is the router.

    It goes over `count` tokens after a pulse of `start`; `address` is the logit that it reads, a cycle later.  For each
    slot of a token `valid` is high for a cycle.
    """
    spec = design.layer.router
    tables: list[Module] = []
    token_bits, expert_bits = design.tokens.bit_length(), address_bits(design.layer.experts)
    m = Module("moec_router", [Port("start", 1), Port("count", token_bits), Port("logit", LOGIT_BITS)])
    stride = router_shape(design).tiles * design.outputs
    states = [m.constant(i, STATE_BITS) for i in range(7)]
    state = m.state("state", STATE_BITS)
    scan, prepare, adding, dividing, finishing, out = (state.eq(i) for i in range(1, 7))

    counter = m.state("counter", 16)
    slot, token = m.state("slot", 8), m.state("token", token_bits)
    scanned = counter.eq(design.layer.experts + features(spec))
    summed, divided = counter.eq(spec.slots - 1), counter.eq(DIVISION - 1)
    last_slot, last_token = slot.eq(spec.slots - 1), (token + 1).eq(m.input("count"))
    starts = state.eq(IDLE) & m.input("start")
    next_token = out & last_slot & ~last_token

    divides = spec.score is Score.SOFTMAX or spec.renorm
    weigh = states[DIVIDE] if divides else states[FINISH]
    following = m.choose(starts, states[SCAN], state)
    following = m.choose(scan & scanned, states[PREPARE], following)
    following = m.choose(prepare, states[SUM] if sums_up(spec) else weigh, following)
    following = m.choose(adding & summed, weigh, following)
    following = m.choose(dividing & divided, states[FINISH], following)
    following = m.choose(finishing, states[OUT], following)
    after = m.choose(last_slot, m.choose(last_token, states[IDLE], states[SCAN]), weigh)
    m.drive(state, m.choose(out, after, following))
    ends = (scan & scanned) | (adding & summed) | (dividing & divided)
    counts = (scan | adding | dividing) & ~ends
    m.drive(counter, m.choose(counts, counter + 1, m.constant(0, 16)))
    m.drive(slot, m.choose(out, m.choose(last_slot, m.constant(0, 8), slot + 1), slot))
    m.drive(token, m.choose(out & last_slot, m.choose(last_token, m.constant(0, token_bits), token + 1), token))

    address = address_bits(logits(design).read_words)
    base = m.state("base", address)
    m.drive(base, m.choose(starts, m.constant(0, address), m.choose(next_token, base + stride, base)))
    delay = 1 + features(spec)
    reading = scan & counter.less(design.layer.experts)
    logit = m.input("logit")
    new = Entry(
        m.delay(reading, delay),
        m.delay(logit, features(spec)),
        m.delay(counter.unsigned(expert_bits), delay),
        _payload(m, spec.score, logit, tables),
    )
    clear = starts | next_token
    entries = _list(m, spec.slots, new, clear, adding | out)
    top, now = m.state("top", LOGIT_BITS - LOGIT_FRACTION + 1, None), entries[0]
    weight = _weights(m, spec, design, new, now, top, (clear, prepare, adding, dividing, finishing), counter)
    whole = now.logit.bits(LOGIT_FRACTION, LOGIT_BITS - LOGIT_FRACTION).signed(top.width)
    m.drive(top, m.choose(prepare, whole, top))

    m.output("address", base + counter.unsigned(address))
    m.output("valid", m.register(out))
    m.output("token", m.register(token))
    m.output("expert", m.register(now.expert))
    m.output("weight", m.register(weight))
    return [*tables, m]


def _weights(
    m: Module, spec: Router, design: Design, new: Entry, now: Entry, top: Net, phases: tuple[Net, ...], counter: Net
) -> Net:
    """The weight of the entry in front, in the state after FINISH."""
    clear, prepare, adding, dividing, finishing = phases
    if spec.score is not Score.SOFTMAX and not spec.renorm:
        share = m.register(now.payload)
    else:
        power = spec.score is Score.SOFTMAX
        bits = (POWER_BITS + GUARD_BITS if power else SCORE_BITS) + address_bits(max(2, design.layer.experts))
        total = m.state("total", bits, None)
        part = now.payload.unsigned(bits)
        if power:
            whole = now.logit.bits(LOGIT_FRACTION, LOGIT_BITS - LOGIT_FRACTION).signed(top.width)
            shares = m.join(now.payload, m.constant(0, GUARD_BITS)).unsigned(bits)
            part = shares.down((top - whole).unsigned(bits))
        nothing = m.constant(0, bits)
        if sums_up(spec):
            following = m.choose(prepare, nothing, m.choose(adding, total + part, total))
        else:
            following = m.choose(clear, nothing, _running_sum(m, new.valid, new.logit, new.payload, clear, total))
        m.drive(total, following)
        share = _divided(m, part, total, dividing, finishing, counter)
    factor, shift = arithmetic.gate_multiplier(spec)
    width = share.width + arithmetic.MULTIPLIER_BITS + 1
    extended = share.signed(width) if spec.score is Score.IDENTITY else share.unsigned(width)
    rounded = extended.times(factor) + (1 << (shift - 1))
    return limited(m, rounded.bits(shift, width - shift) if shift < width else m.constant(0, GATE_BITS + 1), GATE_BITS)


def _divided(m: Module, part: Net, total: Net, dividing: Net, finishing: Net, counter: Net) -> Net:
    """part / total with 16 fraction bits, halves up, one bit a cycle; 0 where `total` is 0."""
    bits = total.width + 1
    rest, quotient = m.state("rest", bits, None), m.state("quotient", SCORE_BITS, None)
    divisor = total.unsigned(bits)
    doubled = m.choose(counter.eq(1), rest, m.join(rest.bits(0, bits - 1), m.constant(0, 1)))
    takes = ~doubled.below(divisor)
    less = m.choose(takes, doubled - divisor, doubled)
    m.drive(rest, m.choose(dividing, m.choose(counter.eq(0), part.unsigned(bits), less), rest))
    m.drive(quotient, m.choose(dividing, m.join(quotient.bits(0, SCORE_BITS - 1), takes), quotient))
    half = m.join(m.constant(0, 2), total.bits(1, bits - 2))
    up = ~(rest + half).below(divisor)
    result = quotient + up.unsigned(SCORE_BITS)
    kept = m.state("share", SCORE_BITS, None)
    nothing = m.constant(0, SCORE_BITS)
    m.drive(kept, m.choose(finishing, m.choose(total.eq(0), nothing, result), kept))
    return kept
