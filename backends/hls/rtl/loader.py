"""Beats from memory to the tile's buffers: two of weights, of which one is filled while the other is used."""

from __future__ import annotations

from dataclasses import dataclass

from moec.backends.hls.rtl.netlist import Module, Net
from moec.fixed.arithmetic import MULTIPLIER_BITS
from moec.fixed.design import Design
from moec.fixed.layout import RECORD_BITS
from moec.fixed.model import tile as plan
from moec.fixed.model.tile import SHIFT_BITS, address_bits
from moec.fixed.tables import ENTRY_BITS, STEP_BITS

KIND_BITS = 2


@dataclass(frozen=True)
class Loaded:
    """What the loader gives to the rest of the tile.

    ready            the next beat is taken in this cycle
    busy             entries of the table are still being written
    weights, channels, table   (write, address, word) of the buffers; `table` is None without a table
    scalars          of the expert in each buffer
    kinds            what is in each buffer
    complete         a pulse for each buffer, one cycle before all of it can be read
    """

    ready: Net
    busy: Net
    weights: tuple[Net, Net, Net]
    channels: tuple[Net, Net, Net]
    table: tuple[Net, Net, Net] | None
    scalars: tuple[Net, Net]
    kinds: tuple[Net, Net]
    complete: tuple[Net, Net]


def count(m: Module, name: str, bits: int, step: Net, again: Net, start: Net | int) -> Net:
    """A number that grows by one where `step`, and becomes `start` where `again` (which goes before)."""
    state = m.state(name, bits)
    m.drive(state, m.choose(again, state.operand(start), m.choose(step, state + 1, state)))
    return state


def loader(m: Module, design: Design, valid: Net, kind: Net, beat: Net, full: tuple[Net, Net]) -> Loaded:
    """Takes sections one after another, each into the buffer that is not `full`, and the table.

    valid, kind, beat   the stream; `kind` matters at a section's first beat
    """
    bank = m.state("load_bank", 1)
    loading = m.state("loading", 1)
    number = m.state("load_segment", 5)
    beats_bits = max(beats for k in plan.kinds(design) for _, beats in plan.segments(k)).bit_length()
    done = m.state("load_count", beats_bits)
    free = ~m.choose(bank, full[1], full[0])
    is_table = kind.eq(plan.TABLE) & ~loading
    busy = m.constant(0, 1)
    table = None
    if plan.has_table(design):
        table, busy = _table(m, design, valid & is_table, beat)
    ready = ~busy & (is_table | free)
    taken = valid & ready & ~is_table

    known = [(k, plan.segments(k)) for k in plan.kinds(design)]
    flat = [(name, beats, i == len(parts) - 1) for _, parts in known for i, (name, beats) in enumerate(parts)]
    starts, place = [0], 0
    for _, parts in known:
        starts.append(place)
        place += len(parts)
    first = m.select(kind, [m.constant(s, 5) for s in starts])
    now = m.choose(loading, number, first)
    last_beat = m.select(now, [m.constant(beats - 1, beats_bits) for _, beats, _ in flat])
    ends = done.eq(last_beat)
    section_ends = taken & ends & m.select(now, [m.constant(int(last), 1) for _, _, last in flat])
    m.drive(done, m.choose(taken, m.choose(ends, m.constant(0, beats_bits), done + 1), done))
    m.drive(number, m.choose(taken, m.choose(ends, now + 1, now), number))
    m.drive(loading, m.choose(taken, ~section_ends, loading))
    m.drive(bank, bank ^ section_ends)

    def target(name: str) -> Net:
        return taken & m.select(now, [m.constant(int(part == name), 1) for part, _, _ in flat])

    def address(name: str, words: int, step: Net) -> Net:
        bits = address_bits(words)
        other = m.choose(bank, m.constant(0, bits), m.constant(words // 2, bits))
        return count(m, name, bits, step, section_ends, other)

    tiles, channels, scalars = target("tiles"), target("channels"), target("scalars")
    records = [part.bits(0, plan.record_bits(design)) for part in beat.parts(RECORD_BITS)]
    held, kept = [], []
    for i in range(2):
        mine = bank.eq(i)
        held.append(_keep(m, f"scalars_{i}", scalars & mine, beat.bits(0, MULTIPLIER_BITS + SHIFT_BITS)))
        kept.append(_keep(m, f"kind_{i}", taken & ~loading & mine, kind))
    return Loaded(
        ready,
        busy,
        (tiles, address("tiles_to", plan.weights(design).words, tiles), beat),
        (channels, address("channels_to", plan.channels(design).words, channels), m.pack(records)),
        table,
        (held[0], held[1]),
        (kept[0], kept[1]),
        (section_ends & bank.eq(0), section_ends & bank.eq(1)),
    )


def _keep(m: Module, name: str, take: Net, value: Net) -> Net:
    state = m.state(name, value.width)
    m.drive(state, m.choose(take, value, state))
    return state


def _table(m: Module, design: Design, offered: Net, beat: Net) -> tuple[tuple[Net, Net, Net], Net]:
    """Entries of a beat are written one a cycle; the second value says that a beat's are still being written."""
    many = beat.width // RECORD_BITS
    bits = many.bit_length()
    left = m.state("table_left", bits)
    busy = ~left.eq(0)
    taken = offered & ~busy
    m.drive(left, m.choose(taken, m.constant(many, bits), m.choose(busy, left - 1, left)))
    held = m.state("table_beat", beat.width, None)
    rest = held.bits(RECORD_BITS, beat.width - RECORD_BITS).unsigned(beat.width) if many > 1 else held
    m.drive(held, m.choose(taken, beat, rest))
    number = count(m, "table_to", STEP_BITS, busy, m.constant(0, 1), 0)
    return (busy, number, held.bits(0, 2 * ENTRY_BITS)), busy
