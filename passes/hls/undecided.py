"""What was decided of a module's hardware so far."""

from torch_mlir import ir

from moec.dialect.hls import Decisions, decisions
from moec.fixed.design import Design, Memory, Order
from moec.passes.base import Pass
from moec.passes.refusal import error


def decided(module: ir.Module, by: Pass) -> Decisions:
    """The module's decisions.  Raises DiagnosticError where there are none, or where the attribute is none."""
    try:
        found = decisions(module)
    except ValueError as why:
        raise error("E0605", f"the module's attribute does not say what hardware it becomes: {why}") from why
    if found is None:
        raise error(
            "E0746",
            f"`{by.name}` decides on hardware, and this module is for none",
            fix="compile with `--target hls:BOARD`, or give the module the attribute `moe.hls`",
        )
    return found


def provisional(found: Decisions) -> Design:
    """A design to begin a search from: with what is decided, and the smallest of everything else."""
    return Design(
        layer=found.layer,
        board=found.board,
        inputs=found.inputs or 1,
        outputs=found.outputs or 1,
        ports=found.ports or 1,
        port_bits=found.port_bits or found.board.port_bits,
        tokens=found.tokens,
        order=found.order or Order.EXPERT,
        queues=found.queues or Memory.BRAM,
        weights_in=found.weights_in or Memory.BRAM,
        rows_in=found.rows_in or Memory.BRAM,
    )
