"""The oracle: runs a module of the `moe` dialect, graph or kernel level, in NumPy float64.

Every backend is tested against it, and every pass must leave its answer alone.  It is itself guarded by references
written by hand in PyTorch (tests/oracle).
"""

from collections.abc import Mapping

import numpy as np
from torch_mlir import ir

from moec.dialect.functions import layer_function, named_function
from moec.oracle import exchange, kernels, layers, quantised, scalars, structure, training
from moec.oracle.scope import Array, Scope


def run(module: ir.Module, arguments: Mapping[str, Array], function: str | None = None) -> dict[str, Array]:
    """Run a function on arguments by their `moe.name`; floats are taken as exact values.

    `function` names one of those that train a layer; without it the layer itself is run.  Returns the results by name,
    as float64 (or int64) arrays.  Raises KeyError for a missing argument or function, and CannotInterpret for an
    operation without meaning here.
    """
    operation = layer_function(module) if function is None else named_function(module, function)
    attributes = operation.attributes
    rooms = (scalars, structure, layers, kernels, quantised, training, exchange)
    scope = Scope({name: meaning for room in rooms for name, meaning in room.MEANING.items()})
    given = [np.asarray(arguments[ir.StringAttr(a["moe.name"]).value]) for a in attributes["arg_attrs"]]
    exact = [array.astype(np.float64 if array.dtype.kind == "f" else np.int64) for array in given]
    with np.errstate(all="ignore"):
        results = scope.run(operation.regions[0].blocks[0], exact)
    names = [ir.StringAttr(a["moe.name"]).value for a in attributes["res_attrs"]]
    return dict(zip(names, results, strict=True))
