"""Memories on the chip: one port to write, one to read, whose words may have another width."""

from __future__ import annotations

from moec.backends.hls.rtl.netlist import Module, Net, Port
from moec.fixed.design import Memory
from moec.fixed.model.tile import Shape, address_bits

STYLES = {Memory.BRAM: "block", Memory.URAM: "ultra", Memory.LUTRAM: "distributed"}


class Library:
    """The memories of a tile, each shape once."""

    def __init__(self) -> None:
        self._modules: dict[str, Module] = {}

    @property
    def modules(self) -> tuple[Module, ...]:
        return tuple(self._modules.values())

    def ram(self, memory: Memory, depth: int, width: int) -> Module:
        """A module with `we`, `waddr`, `wdata`, `raddr` and `rdata`, which comes a cycle after its address.

        A word that is written in the cycle in which it is read is read as it was before.
        """
        name = f"moec_{memory.value}_{depth}x{width}"
        if name not in self._modules:
            self._modules[name] = _ram(name, STYLES[memory], depth, width)
        return self._modules[name]


def _ram(name: str, style: str, depth: int, width: int) -> Module:
    bits = address_bits(depth)
    m = Module(name, [Port("we", 1), Port("waddr", bits), Port("wdata", width), Port("raddr", bits)])
    array = f"!hw.inout<uarray<{depth}xi{width}>>"
    m.line("%clock = seq.from_clock %clk")
    m.line(f'%words = sv.reg {{sv.attributes = [#sv.attribute<"ram_style" = "\\"{style}\\"">]}} : {array}')
    m.line(f"%out = sv.reg : !hw.inout<i{width}>")
    m.line(f"%from = sv.array_index_inout %words[%raddr] : {array}, i{bits}")
    m.line(f"%to = sv.array_index_inout %words[%waddr] : {array}, i{bits}")
    m.line(f"%read = sv.read_inout %from : !hw.inout<i{width}>")
    m.line(
        f"sv.alwaysff(posedge %clock) {{ sv.if %we {{ sv.passign %to, %wdata : i{width} }} "
        f"sv.passign %out, %read : i{width} }}"
    )
    m.output("rdata", m.add(f"sv.read_inout %out : !hw.inout<i{width}>", width))
    return m


def _above(m: Module, address: Net, bit: int) -> Net:
    """The bits of an address from `bit` on; 0 where it has none."""
    return address.bits(bit, address.width - bit) if address.width > bit else m.constant(0, 1)


def buffer(
    m: Module, library: Library, memory: Memory, shape: Shape, name: str, we: Net, waddr: Net, wdata: Net, raddr: Net
) -> Net:
    """An instance of such a memory; gives what is read, a cycle after its address.

    waddr, raddr   in words of their own widths; bits above the memory's are left out
    """
    ram = library.ram(memory, shape.depth, shape.width)
    bits = address_bits(shape.depth)
    if shape.many > 1:
        inside = (shape.many - 1).bit_length()
        number, word = waddr.bits(0, inside), _above(m, waddr, inside)
        parts = []
        for part in range(shape.many):
            ports = {"we": we & number.eq(part), "waddr": word.unsigned(bits), "wdata": wdata}
            parts.append(m.instance(ram, f"{name}_{part}", {**ports, "raddr": raddr.unsigned(bits)})["rdata"])
        return m.pack(parts)
    inside = (shape.write // shape.read - 1).bit_length()
    word = _above(m, raddr, inside).unsigned(bits)
    ports = {"we": we, "waddr": waddr.unsigned(bits), "wdata": wdata, "raddr": word}
    whole = m.instance(ram, name, ports)["rdata"]
    if not inside:
        return whole
    return m.select(m.register(raddr.bits(0, inside)), whole.parts(shape.read))
