"""What the buffers of hardware are made of."""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch_mlir import ir

from moec.dialect.hls import write_decisions
from moec.fixed.design import Design, Memory
from moec.fixed.model import synthesis
from moec.fixed.model.kernel import buffer_parts, over, resources, room
from moec.fixed.model.search import bind
from moec.passes.base import Pass, Remarks
from moec.passes.hls.array import nothing_fits
from moec.passes.hls.undecided import decided, provisional
from moec.passes.refusal import error
from moec.passes.rewriting import function


@dataclass(frozen=True)
class HlsMemories(Pass):
    """Decides on block RAM or UltraRAM for the rows, the queues and the weights of an array that is decided.

    Everything goes into block RAM if it fits there, else what is largest goes into UltraRAM, of boards that have some.
    The kernel in C++ has to fit; so has the compute tile in SystemVerilog, which keeps whole experts, if it can.
    Raises DiagnosticError where the buffers do not fit.
    """

    name: ClassVar[str] = "hls-memories"

    def apply(self, module: ir.Module, remarks: Remarks) -> None:
        found, where = decided(module, self), function(module).location
        if None in (found.order, found.inputs, found.outputs, found.ports, found.port_bits):
            raise error("E0746", "the buffers depend on the array", fix="run `hls-order` and `hls-array` before")
        if None not in (found.queues, found.weights_in, found.rows_in):
            return
        design = bind(provisional(found), tile=True) or bind(provisional(found))
        if design is None:
            start = provisional(found)
            raise nothing_fits(start, start.inputs, start.outputs, start.ports)
        write_decisions(
            module,
            replace(found, queues=design.queues, weights_in=design.weights_in, rows_in=design.rows_in),
        )
        for text in said_of(design):
            remarks.add(self, text, where)


def said_of(design: Design) -> list[str]:
    """Why these memories, and what they come to."""
    taken, most, tile = resources(design), room(design.board), synthesis.total(design)
    why = "all fits into block RAM"
    if Memory.URAM in (design.queues, design.weights_in, design.rows_in):
        why = "what is in UltraRAM would not fit into block RAM"
    elif not design.board.uram:
        why = "the board has no UltraRAM"
    largest = sorted(buffer_parts(design).items(), key=lambda one: -(one[1].bram + 8 * one[1].uram))[:3]
    sizes = ", ".join(f"{name} {part.bram + part.uram:g}" for name, part in largest)
    beyond = over(tile, design.board)
    return [
        f"rows in {design.rows_in.value}, queues in {design.queues.value}, weights in {design.weights_in.value}: "
        f"{why}; {taken.bram:g} of {most.bram} block RAMs and {taken.uram} of {most.uram} UltraRAMs are taken",
        f"the largest buffers, in blocks: {sizes}",
        f"the tile in SystemVerilog, which keeps two whole experts, {f'would take {beyond[0]}' if beyond else 'fits'}",
    ]
