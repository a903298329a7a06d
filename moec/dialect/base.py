"""The dialect object itself, apart from its operations so that they can import it."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch_mlir import ir
from torch_mlir.dialects import ext


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
