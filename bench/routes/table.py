"""Names of the routes and where each is built. A route's module is imported when the route is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from bench.layer import Layer

    Run = Callable[[torch.Tensor], torch.Tensor]
    """Tokens [T, d] in the dtype of the format's x to outputs of the same shape, in that dtype or f32."""
else:
    Run = Callable


class Unavailable(Exception):
    """A route cannot run here; the message says why."""


@dataclass(frozen=True)
class Trainable:
    """A layer whose weights take gradients.

    `weights`: each weight of bench.layer.Layer.weights to the parameters that hold it, parts along the axis before the
    last.
    """

    run: Run
    weights: dict[str, list[torch.Tensor]]

    def gradient(self, name: str) -> torch.Tensor:
        """The gradient of a weight, in its shape."""
        import torch

        return torch.cat([part.grad for part in self.weights[name] if part.grad is not None], -2)

    def forget(self) -> None:
        """Let go of all gradients."""
        for parts in self.weights.values():
            for part in parts:
                part.grad = None


@dataclass(frozen=True)
class Route:
    """`module`:`function`(layer, format, **options) builds a Run, or raises Unavailable."""

    name: str
    module: str
    function: str
    formats: tuple[str, ...]
    """Formats of weights (bench/formats.py) that it has."""
    options: tuple[tuple[str, str | int | bool], ...] = ()
    by_default: bool = True
    role: str = "peer"
    """\"ours": what is measured; "peer": what it is compared with; "reference": moec too, for a ratio of its own."""
    arithmetic: str | None = None
    """What it multiplies in, where that is not the format's fastest arithmetic."""
    training: str = ""
    """The function that builds a Trainable, of a route that can be trained."""

    def _function(self, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(import_module(f"bench.routes.{self.module}"), name)
        return function

    def build(self, layer: Layer, format: str) -> Run:
        """The layer for inference."""
        run: Run = self._function(self.function)(layer, format, **dict(self.options))
        return run

    def build_training(self, layer: Layer, format: str) -> Trainable:
        """The layer for training."""
        trainable: Trainable = self._function(self.training)(layer, format, **dict(self.options))
        return trainable


PLAIN = ("f32", "bf16")
QUANTISED = ("int8", "int4", "ternary")

_ALL = (
    Route("moec", "moec_layer", "moec_layer", PLAIN, role="ours", training="moec_training"),
    Route("moec_bf16_rows", "moec_layer", "moec_layer", QUANTISED, role="ours", arithmetic="bf16"),
    Route("moec_int8_rows", "moec_layer", "moec_layer", QUANTISED, (("rows", "int8"),), role="ours"),
    Route("moec_bf16", "moec_layer", "moec_plain", QUANTISED, role="reference"),
    Route("moec_1_thread", "moec_layer", "moec_threads", PLAIN, (("threads", 1),), False, role="reference"),
    Route("loop", "pytorch", "loop", PLAIN, training="loop_training"),
    Route("grouped_mm", "pytorch", "grouped", PLAIN, training="grouped_training"),
    # Hugging Face's eager experts go backward in 20 s: each of them makes a gradient of the size of all.
    *(
        Route(f"hf_{how}", "huggingface", "block", PLAIN, (("implementation", how),), training=training)
        for how, training in (("eager", ""), ("grouped_mm", "block_training"), ("batched_mm", ""))
    ),
    *(
        Route(f"hf_{how}_compiled", "huggingface", "block", PLAIN, (("implementation", how), ("compiled", True)), False)
        for how in ("eager", "grouped_mm", "batched_mm")
    ),
    Route("zentorch", "zentorch", "experts", ("f32", "bf16", "int8")),
    Route("vllm", "vllm", "experts", PLAIN),
    Route("sglang", "sglang", "experts", ("bf16", "int8", "int4")),
    Route("ggml", "ggml", "experts", PLAIN + QUANTISED),
    Route("ggml_repacked", "ggml", "experts", ("int4",), (("repack", True),)),
    Route("ggml_q4_0", "ggml", "experts", ("int4",), (("kind", "q4_0"), ("repack", True))),
)
ROUTES = {route.name: route for route in _ALL}


def routes_for(format: str, mode: str = "inference", compiled: bool = False) -> list[str]:
    """What is measured without being named: with `compiled` also the routes under torch.compile."""
    return [
        route.name
        for route in ROUTES.values()
        if format in route.formats
        and (route.by_default or (compiled and route.name.endswith("_compiled")))
        and (mode == "inference" or route.training)
    ]
