"""The compute tile: buffers, array, lanes and weighted sums, from a stream of weights and one of rows."""

from __future__ import annotations

from dataclasses import dataclass

from moec.backends.hls.rtl.control import Items, state_machine
from moec.backends.hls.rtl.datapath import datapath
from moec.backends.hls.rtl.loader import KIND_BITS, loader
from moec.backends.hls.rtl.memory import Library
from moec.backends.hls.rtl.netlist import Module, Port
from moec.fixed.arithmetic import GATE_BITS
from moec.fixed.design import Design
from moec.fixed.model import tile as plan
from moec.fixed.model.choice import chooses
from moec.fixed.model.tile import address_bits

NAME = "moec_tile"


@dataclass(frozen=True)
class Circuit:
    """A tile's modules, each after those that it uses; the last is the tile."""

    modules: tuple[Module, ...]


def ports(design: Design) -> list[Port]:
    """The tile's inputs."""
    rows = plan.rows(design)
    return [
        Port("beat_valid", 1),
        Port("beat_kind", KIND_BITS),
        Port("beat", design.ports * design.port_bits),
        Port("row_write", 1),
        Port("row_address", address_bits(rows.words)),
        Port("row_word", design.port_bits),
        Port("item_valid", 1),
        Port("item_token", token_bits(design)),
        Port("item_weight", GATE_BITS),
        Port("item_last", 1),
        *([Port("choose", 1)] if chooses(design) else []),
        Port("finish", 1),
        Port("finish_tokens", token_bits(design)),
    ]


def token_bits(design: Design) -> int:
    """Bits of a token's number, and of how many tokens there are."""
    return design.tokens.bit_length()


def tile(design: Design) -> Circuit:
    """The tile of a design."""
    library, m = Library(), Module(NAME, ports(design))
    full = (m.state("full_0", 1), m.state("full_1", 1))
    loaded = loader(m, design, m.input("beat_valid"), m.input("beat_kind"), m.input("beat"), full)
    items = Items(*(m.input(f"item_{name}") for name in ("valid", "token", "weight", "last")))
    finish = (m.input("finish"), m.input("finish_tokens"))
    control = state_machine(m, design, items, loaded.kinds, loaded.complete, finish)
    for flag, complete, release in zip(full, loaded.complete, control.release, strict=True):
        m.drive(flag, complete | (flag & ~release))
    start = (m.input("choose") if chooses(design) else m.constant(0, 1), m.input("finish_tokens"))
    m.output("beat_ready", loaded.ready)
    m.output("item_ready", control.ready)
    m.output("idle", control.idle & ~loaded.busy)
    modules = datapath(m, library, design, loaded, control, start)
    return Circuit((*library.modules, *modules, m))
