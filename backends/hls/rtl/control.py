"""The tile's state machine: which row meets which weights in each cycle."""

from __future__ import annotations

from dataclasses import dataclass

from moec.backends.hls.rtl.netlist import Module, Net
from moec.fixed.design import Design
from moec.fixed.model import geometry
from moec.fixed.model import tile as plan
from moec.fixed.model.tile import address_bits

CLEAR, WAIT, FIRST, GAP, DOWN, FINISH = range(6)
STATE_BITS = 3

GATE_VALUE, HIDDEN, RESULT, LOGIT = range(4)
"""What becomes of a tile's sums."""


@dataclass(frozen=True)
class Items:
    """The stream of rows: `last` says that the next one meets the next weights."""

    valid: Net
    token: Net
    weight: Net
    last: Net


@dataclass(frozen=True)
class Control:
    """What the state machine says in each cycle.

    ready      an item is taken
    release    for each buffer of weights, a pulse: it may be filled again from the next cycle on
    running    a step is made, of a tile's sum the `first` or the `last`
    second     the step is one of `down`
    row, code, tile   where the step's operands are read: in the rows, the hidden layer, the weights
    mode, restart, jump, kind, bank   of the step's tile: what becomes of it, whether it is the first of the first
               linear or of `down`, the weights and their buffer
    base, weight   where the row's sums begin, and what they are weighted with
    logits     where the row's logits begin
    sweep, wipe  the sums at `sweep` are cleared; they are also given as results, where it is not a `wipe` after reset
    idle       nothing is to be done, and all sums are in memory
    """

    ready: Net
    release: tuple[Net, Net]
    running: Net
    first: Net
    last: Net
    second: Net
    row: Net
    code: Net
    tile: Net
    mode: Net
    restart: Net
    jump: Net
    kind: Net
    bank: Net
    base: Net
    weight: Net
    logits: Net
    sweeping: Net
    sweep: Net
    results: Net
    idle: Net


def by_kind(m: Module, design: Design, kind: Net, values: list[int], bits: int) -> Net:
    """One of the values, of which there is one for each kind."""
    return m.select(kind, [m.constant(v, bits) for v in [values[0], *values]])


def state_machine(
    m: Module, design: Design, items: Items, kinds: tuple[Net, Net], complete: tuple[Net, Net], finish: tuple[Net, Net]
) -> Control:
    """The state machine.

    kinds, complete  of the buffers of weights, from the loader
    finish           results are wanted, and of how many tokens
    """
    known = plan.kinds(design)
    state = m.state("state", STATE_BITS, CLEAR)
    clear, wait, first, gap, down, finishing = (state.eq(i) for i in range(6))
    bank = m.state("bank", 1)
    kind = m.choose(bank, kinds[1], kinds[0])
    gate = by_kind(m, design, kind, [int(k.expert is None) for k in known], 1)

    passes = [None if k.expert is None else geometry.passes(design, k.expert) for k in known]
    router = geometry.router(design)
    gated = by_kind(m, design, kind, [int(k.expert is not None and k.expert.gated) for k in known], 1)
    counters = 16
    row_steps = m.constant(router.steps - 1, counters)
    down_steps = by_kind(m, design, kind, [p.down.steps - 1 if p else 0 for p in passes], counters)
    first_tiles = by_kind(m, design, kind, [(p.first if p else router).tiles - 1 for p in passes], counters)
    down_tiles = by_kind(m, design, kind, [p.down.tiles - 1 if p else 0 for p in passes], counters)
    gaps = by_kind(m, design, kind, [max(0, p.gap - 1) if p else 0 for p in passes], counters)
    no_gap = by_kind(m, design, kind, [int(p is not None and p.gap == 0) for p in passes], 1)

    running = first | down
    step, tile = m.state("step", counters), m.state("tile", counters)
    last = step.eq(m.choose(down, down_steps, row_steps))
    tiles_end = last & tile.eq(m.choose(down, down_tiles, first_tiles))
    zero = m.constant(0, counters)
    waited = m.state("waited", counters)
    m.drive(waited, m.choose(gap, waited + 1, zero))
    m.drive(step, m.choose(running & ~last, step + 1, zero))
    m.drive(tile, m.choose(running & last, m.choose(tiles_end, zero, tile + 1), tile))

    first_ends = first & tiles_end
    ends = tiles_end & (down | (first & gate))
    item_last = m.state("item_last", 1)
    leaves = ends & item_last
    available = _flags(m, "available", complete, (leaves & bank.eq(0), leaves & bank.eq(1)))
    here = m.choose(bank, available[1], available[0])
    ready = (wait & here) | (ends & ~item_last)
    taken = items.valid & ready
    settled_bits = geometry.settled(design).bit_length()
    settling = m.state("settling", settled_bits)
    settled = settling.eq(0)
    m.drive(
        settling,
        m.choose(ends, m.constant(geometry.settled(design), settled_bits), m.choose(settled, settling, settling - 1)),
    )
    idle = wait & ~here & settled
    starts = idle & finish[0]

    size = plan.sums(design).words
    bits = address_bits(size) + 1
    sweep = m.state("sweep", bits)
    until = m.choose(clear, m.constant(size, bits), finish[1].unsigned(bits).times(plan.result_stride(design)))
    sweeping = clear | finishing
    swept = (sweep + 1).eq(until)
    m.drive(sweep, m.choose(sweeping & ~swept, sweep + 1, m.constant(0, bits)))

    names = [m.constant(i, STATE_BITS) for i in range(6)]
    after_first = m.choose(gate, names[WAIT], m.choose(no_gap, names[DOWN], names[GAP]))
    following = m.choose(first_ends, after_first, state)
    following = m.choose(gap & waited.eq(gaps), names[DOWN], following)
    following = m.choose(ends | (sweeping & swept), names[WAIT], following)
    following = m.choose(starts, names[FINISH], following)
    m.drive(state, m.choose(taken, names[FIRST], following))
    m.drive(bank, bank ^ leaves)

    m.drive(item_last, m.choose(taken, items.last, item_last))
    row_bits = address_bits(plan.rows(design).read_words)
    row = _held(m, "row", taken, items.token.unsigned(row_bits).times(plan.row_stride(design)))
    sum_bits = address_bits(size)
    base = _held(m, "base", taken, items.token.unsigned(sum_bits).times(plan.result_stride(design)))
    weight = _held(m, "weight", taken, items.weight)
    logit_bits = address_bits(plan.logits(design).words)
    groups = router.tiles * geometry.groups(design)
    logits = _held(m, "logits", taken, items.token.unsigned(logit_bits).times(groups))

    shape = plan.weights(design)
    tile_bits = address_bits(shape.read_words)
    other = shape.read_words // 2
    second = by_kind(m, design, kind, [plan.second(shape, k.first[1]) for k in known], tile_bits)
    here_base = m.choose(bank, m.constant(other, tile_bits), m.constant(0, tile_bits))
    position = m.state("weights_from", tile_bits)
    now = m.choose(first & step.eq(0) & tile.eq(0), here_base, position)
    m.drive(position, m.choose(first_ends, here_base + second, m.choose(running, now + 1, position)))

    gate_tile = gated & ~tile.bits(0, 1) & first
    modes = [m.constant(i, 2) for i in range(4)]
    mode = m.choose(down, modes[RESULT], m.choose(gate, modes[LOGIT], m.choose(gate_tile, *modes[GATE_VALUE:RESULT])))
    released = m.delay(leaves, geometry.retired(design))
    oldest = m.state("oldest", 1)
    m.drive(oldest, oldest ^ released)
    return Control(
        ready=ready,
        release=(released & oldest.eq(0), released & oldest.eq(1)),
        running=running,
        first=step.eq(0),
        last=running & last,
        second=down,
        row=row + step.unsigned(row_bits),
        code=step,
        tile=now,
        mode=mode,
        restart=first & tile.eq(0),
        jump=down & tile.eq(0),
        kind=kind,
        bank=bank,
        base=base,
        weight=weight,
        logits=logits,
        sweeping=sweeping,
        sweep=sweep.bits(0, sum_bits),
        results=finishing,
        idle=idle,
    )


def _held(m: Module, name: str, take: Net, value: Net) -> Net:
    state = m.state(f"item_{name}", value.width, None)
    m.drive(state, m.choose(take, value, state))
    return state


def _flags(m: Module, name: str, raise_: tuple[Net, Net], lower: tuple[Net, Net]) -> tuple[Net, Net]:
    """Two flags; where one is raised and lowered at once it is raised."""
    flags = []
    for i in range(2):
        flag = m.state(f"{name}_{i}", 1)
        m.drive(flag, raise_[i] | (flag & ~lower[i]))
        flags.append(flag)
    return flags[0], flags[1]
