"""The dialect object itself, apart from its operations so that they can import it.

MLIR's bindings look for a module of a dialect's name when they meet an operation of it, and look again each time that
there is none, which took up to a fifth of the time of compiling a layer anew.  This is that module.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from torch_mlir import ir
from torch_mlir.dialects import ext
from torch_mlir.dialects._ods_common import _cext

_cext.globals.append_dialect_search_prefix(__name__.rpartition(".")[0])


class Moe(ext.Dialect, name="moe"):
    """Mixture-of-Experts layers, from the graph of a layer down to scheduled kernels."""


Class = TypeVar("Class", bound=type)


def unsegmented(attribute: str) -> Callable[[Class], Class]:
    """Builders of the class leave this attribute out: one variadic group needs no sizes, and IRDL asks for none."""

    def decorate(class_: Class) -> Class:
        build: Callable[..., None] = vars(class_)["__init__"]

        def init(self: Any, *args: Any, **options: Any) -> None:
            build(self, *args, **options)
            del self.operation.attributes[attribute]

        setattr(class_, "__init__", init)  # noqa: B010 - the type checker forbids the assignment
        return class_

    return decorate


def only(op: Any) -> ir.OpResult:
    """The result of an operation that has one.  Raises ValueError where it has several."""
    (result,) = op.operation.results
    return result
