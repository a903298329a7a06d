"""The oracle: runs a module of the `moe` dialect, graph or kernel level, in NumPy float64.

Every backend is tested against it, and every pass must leave its answer alone.  It is itself guarded by references
written by hand in PyTorch (tests/oracle).
"""

from collections.abc import Mapping

import numpy as np
from torch_mlir import ir

from moec.oracle import kernels, layers, quantised, scalars, structure
from moec.oracle.scope import Array, Scope


def run(module: ir.Module, arguments: Mapping[str, Array]) -> dict[str, Array]:
    """Run the module's function on arguments by their `moe.name`; floats are taken as exact values.

    Returns the results by name, as float64 (or int64) arrays.  Raises KeyError for a missing argument and
    CannotInterpret for an operation without meaning here.
    """
    (function,) = [op for op in module.body.operations if op.operation.name == "func.func"]
    attributes = function.operation.attributes
    tables = (scalars.MEANING, structure.MEANING, layers.MEANING, kernels.MEANING, quantised.MEANING)
    scope = Scope({name: meaning for table in tables for name, meaning in table.items()})
    given = [np.asarray(arguments[ir.StringAttr(a["moe.name"]).value]) for a in attributes["arg_attrs"]]
    exact = [array.astype(np.float64 if array.dtype.kind == "f" else np.int64) for array in given]
    with np.errstate(all="ignore"):
        results = scope.run(function.regions[0].blocks[0], exact)
    names = [ir.StringAttr(a["moe.name"]).value for a in attributes["res_attrs"]]
    return dict(zip(names, results, strict=True))
