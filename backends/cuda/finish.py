"""Finish regions as C++ function objects, with what kernels must be given for them."""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.cuda import regions
from moec.backends.cuda.kernel import Argument, Scope, TensorPointer


@dataclass(frozen=True)
class Finish:
    """`float NAME(int token, int column, float sum)`, to be rounded to `result` where it is stored.

    source      the class and the region's function
    parameters  C++ declarations of the kernel's parameters, and `initial` the initialiser of an object of them
    """

    name: str
    source: str
    parameters: tuple[str, ...]
    arguments: tuple[Argument, ...]
    initial: str
    result: str


def finish(region: ir.Region, scope: Scope, wish: str) -> Finish:
    """Raises Unsupported for what the region cannot be printed of."""
    function = regions.scalar_function(region, scope.name(f"{wish}_value"))
    name = scope.name(f"{wish}_finish")
    pointers = [f"const {element.memory}* p{n}" for n, element in enumerate(function.elements)]
    place = {"row": "token", "token": "token", "slot": "token", "expert": "0", "column": "column"}
    loads = [f"moec::load(p{n} + {element.place(**place)})" for n, element in enumerate(function.elements)]
    source = "\n".join(
        [
            function.source.rstrip("\n"),
            f"struct {name} {{",
            *(f"  {pointer};" for pointer in pointers),
            "  MOEC_DEVICE float operator()(int token, int column, float sum) const {",
            "    float out[1];",
            f"    {function.name}({', '.join(['sum', *loads, 'out'])});",
            "    return out[0];",
            "  }",
            "};\n",
        ]
    )
    arguments = tuple(TensorPointer(e.tensor, f"const {e.memory}*") for e in function.elements)
    initial = f"{{{', '.join(f'p{n}' for n in range(len(pointers)))}}}"
    return Finish(name, source, tuple(pointers), arguments, initial, function.results[0])
