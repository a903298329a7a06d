"""The MoE blocks of Hugging Face transformers, with each of their `experts_implementation`s."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from bench.layer import Layer
from bench.routes.table import Run, Unavailable
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


def block(layer: Layer, dtype: str, implementation: str, compiled: bool = False) -> Run:
    """The block with the layer's weights in place of its own, uncopied."""
    if find_spec("transformers") is None:
        raise Unavailable("transformers is not installed: pip install 'moec[bench]'")
    shape = layer.shape
    cls, config = _configuration(shape)
    config._experts_implementation = implementation
    with torch.device("meta"):
        module = cls(config)
    weights = {name: torch.nn.Parameter(value, requires_grad=False) for name, value in layer.weights(dtype).items()}
    module.experts.gate_up_proj = weights["gate_up"]
    module.experts.down_proj = weights["down"]
    module.gate.weight = weights["router"]
    if shape.shared:
        gate, up = layer.weights(dtype)["shared_gate_up"].chunk(2)
        module.shared_experts.gate_proj.weight = torch.nn.Parameter(gate, requires_grad=False)
        module.shared_experts.up_proj.weight = torch.nn.Parameter(up, requires_grad=False)
        module.shared_experts.down_proj.weight = weights["shared_down"]
    module.eval()
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
