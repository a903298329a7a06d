"""The MoE blocks of Hugging Face transformers, with each of their `experts_implementation`s."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from bench.layer import Layer
from bench.routes.table import Run, Trainable, Unavailable
from bench.shapes import Shape

GATHER_LIMIT = 3e9  # bytes; batched_mm copies the weights of every (token, expert) pair


def _configuration(shape: Shape) -> tuple[type[Any], Any]:
    """Block class and configuration of the model family that computes `shape`."""
    import transformers

    common = {"hidden_size": shape.d, "hidden_act": "silu", "num_experts_per_tok": shape.top_k}
    if shape.family == "olmoe":
        name = "OlmoeSparseMoeBlock"
        config = transformers.OlmoeConfig(
            **common, num_experts=shape.experts, intermediate_size=shape.ff, norm_topk_prob=shape.renormalise
        )
    elif shape.family == "qwen3_moe":
        name = "Qwen3MoeSparseMoeBlock"
        config = transformers.Qwen3MoeConfig(
            **common, num_experts=shape.experts, moe_intermediate_size=shape.ff, norm_topk_prob=shape.renormalise
        )
    elif shape.family == "mixtral":
        name = "MixtralSparseMoeBlock"
        config = transformers.MixtralConfig(**common, num_local_experts=shape.experts, intermediate_size=shape.ff)
    elif shape.family == "deepseek_v2":
        name = "DeepseekV2Moe"
        config = transformers.DeepseekV2Config(
            **common,
            num_experts=shape.experts,
            n_routed_experts=shape.experts,
            moe_intermediate_size=shape.ff,
            n_shared_experts=shape.shared,
            topk_method="greedy",
            routed_scaling_factor=1.0,
        )
    else:
        raise Unavailable(f"no Hugging Face block computes the family {shape.family!r}")
    module = import_module(f"transformers.models.{shape.family}.modeling_{shape.family}")
    return getattr(module, name), config


def _module(layer: Layer, dtype: str, implementation: str, trained: bool) -> tuple[Any, dict[str, list[torch.Tensor]]]:
    """The block with the layer's weights in place of its own, uncopied, and which of its parameters they are."""
    if find_spec("transformers") is None:
        raise Unavailable("transformers is not installed: pip install 'moec[bench]'")
    shape = layer.shape
    cls, config = _configuration(shape)
    config._experts_implementation = implementation
    with torch.device("meta"):
        module = cls(config)
    parts: dict[str, list[torch.Tensor]] = {
        name: [torch.nn.Parameter(part, requires_grad=trained) for part in _parts(name, weight)]
        for name, weight in layer.weights(dtype).items()
    }
    (module.experts.gate_up_proj,), (module.experts.down_proj,), (module.gate.weight,) = (
        parts[name] for name in ("gate_up", "down", "router")
    )
    if shape.shared:
        shared = module.shared_experts
        shared.gate_proj.weight, shared.up_proj.weight = parts["shared_gate_up"]
        (shared.down_proj.weight,) = parts["shared_down"]
    return module.train(trained), parts


def _parts(name: str, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return weight.chunk(2) if name == "shared_gate_up" else (weight,)


def block(layer: Layer, dtype: str, implementation: str, compiled: bool = False) -> Run:
    """The block for inference."""
    module, _ = _module(layer, dtype, implementation, trained=False)
    shape = layer.shape
    if compiled:
        torch._dynamo.reset()
        module = torch.compile(module)

    def run(x: torch.Tensor) -> torch.Tensor:
        if implementation == "batched_mm":
            gathered = len(x) * shape.top_k * shape.expert_weights * x.element_size()
            if gathered > GATHER_LIMIT:
                raise Unavailable(f"batched_mm would gather {gathered / 1e9:.0f} GB of weights")
        y: torch.Tensor = module(x[None])[0]
        return y

    return run


def block_training(layer: Layer, dtype: str, implementation: str) -> Trainable:
    """The block with gradients."""
    module, parts = _module(layer, dtype, implementation, trained=True)
    return Trainable(lambda x: module(x[None])[0], parts)
