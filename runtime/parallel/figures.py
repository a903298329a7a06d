"""What does not change from call to call: sizes, names and how rows travel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from moec.errors import MoecError
from moec.runtime.parallel.pieces import Pieces
from moec.runtime.parallel.seat import Seat
from moec.runtime.parallel.wire import Wire


@dataclass(frozen=True)
class Figures:
    """Of one layer on one rank.

    seat      where it is
    x         the layer's input whose rows experts read
    slots     K: how many experts a token chooses at most
    width     N: elements of a result's row
    dispatch  how rows travel to experts
    combine   how results travel back
    """

    seat: Seat
    x: str
    slots: int
    width: int
    dispatch: Wire
    combine: Wire

    @classmethod
    def of(cls, seat: Seat, pieces: Pieces, inputs: Sequence[str]) -> Figures:
        """inputs: names of the layer's, in order."""
        rows = pieces.experts.inputs[0]
        by_name = {tensor.name: tensor for piece in (pieces.route, pieces.collect) for tensor in piece.inputs}
        by_name |= {tensor.name: tensor for tensor in (pieces.shared.inputs if pieces.shared else ())}
        same = [n for n in inputs if n not in by_name or (by_name[n].row, by_name[n].dtype) == (rows.row, rows.dtype)]
        if not same:
            raise MoecError("no input of the layer is what its experts read")
        width = pieces.experts.outputs[0].row[0]
        return cls(
            seat=seat,
            x=same[0],
            slots=pieces.route.outputs[0].row[0],
            width=width,
            dispatch=Wire(rows.row[0], rows.dtype, seat.parallel.sends.dispatch),
            combine=Wire(width, torch.float32, seat.parallel.sends.combine),
        )


def named(values: Mapping[str, torch.Tensor], names: Sequence[str]) -> list[torch.Tensor]:
    """The tensors of these names, in order."""
    return [values[name] for name in names]
