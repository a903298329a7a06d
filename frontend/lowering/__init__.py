"""A checked layer to the graph level of the `moe` dialect.  MLIR is imported when `lower` is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch_mlir import ir

    from moec.frontend.model import Layer


def lower(layer: Layer, context: ir.Context) -> ir.Module:
    """The verified graph-level module of a layer.  `context` comes from `moec.dialect.context()`.

    Its one function is named after the layer; arguments are x, the other inputs, then parameters and buffers, in the
    order of `layer.inputs` and `layer.parameters`.  Operations carry the source places they come from.
    """
    from moec.frontend.lowering.layer import lower_layer

    return lower_layer(layer, context)
