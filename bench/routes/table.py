"""Names of the routes and where each is built. A route's module is imported when the route is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from bench.layer import Layer

    Run = Callable[[torch.Tensor], torch.Tensor]
    """Tokens [T, d] in the layer's dtype to outputs of the same shape."""
else:
    Run = Callable


class Unavailable(Exception):
    """A route cannot run here; the message says why."""


@dataclass(frozen=True)
class Route:
    """`module`:`function`(layer, dtype, **options) builds a Run, or raises Unavailable."""

    name: str
    module: str
    function: str
    options: tuple[tuple[str, str | bool], ...] = ()
    by_default: bool = True

    def build(self, layer: Layer, dtype: str) -> Run:
        function: Callable[..., Run] = getattr(import_module(f"bench.routes.{self.module}"), self.function)
        return function(layer, dtype, **dict(self.options))


_ALL = (
    Route("moec", "moec_layer", "moec_layer"),
    Route("loop", "pytorch", "loop"),
    Route("grouped_mm", "pytorch", "grouped"),
    *(
        Route(f"hf_{how}", "huggingface", "block", (("implementation", how),))
        for how in ("eager", "grouped_mm", "batched_mm")
    ),
    *(
        Route(f"hf_{how}_compiled", "huggingface", "block", (("implementation", how), ("compiled", True)), False)
        for how in ("eager", "grouped_mm", "batched_mm")
    ),
)
ROUTES = {route.name: route for route in _ALL}
PEERS = tuple(name for name in ROUTES if name != "moec")
