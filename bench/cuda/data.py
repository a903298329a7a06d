"""Weights and tokens, and how routing is steered: every call of these makes other values unless it is given a seed."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping

import torch

from bench.cuda.shapes import Shape
from moec.formats import FORMATS
from moec.runtime.dtypes import TORCH_DTYPES

ROUTINGS = ("random", "skewed", "one", "half", "ties")
"""random; zipf-like; all tokens choose the same experts; half of the experts are never chosen; all logits are equal."""


def fresh_seed() -> int:
    """A seed that nobody knows before; it is printed, so that a failure can be repeated."""
    return secrets.randbits(32)


def device() -> torch.device:
    """The GPU."""
    return torch.device("cuda", torch.cuda.current_device())


def weights(shape: Shape, device: torch.device, seed: int, routing: str = "random") -> Mapping[str, torch.Tensor]:
    """By the names of the artifact: router f32 [E, d], gate and up [E, ff, d], down [E, d, ff]; those of shared experts
    alike, as `common0.gate.weight` and so on.

    Where the shape is given codes these three are such, and `routed.gate.scale` and so on their scales, f32 [E, N] or
    bf16 [E, N, K / group].  Where it makes them itself the weights are exactly what codes and scales stand for.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*sizes: int, dtype: torch.dtype = TORCH_DTYPES[shape.dtype]) -> torch.Tensor:
        values = torch.randn(sizes, generator=generator, device=device, dtype=torch.float32)
        scale: float = sizes[-1] ** -0.5
        return (values * scale).to(dtype)

    router = normal(shape.experts, shape.d, dtype=torch.float32)
    if routing == "ties":
        router.zero_()
    # Column 0 of every token is 1 (`tokens`), so column 0 of the router is a bias.
    router[:, 0] = torch.tensor(_bias(shape, routing), device=device)
    made = {
        "router.logits.weight": router,
        "routed.gate.weight": normal(shape.experts, shape.ff, shape.d),
        "routed.up.weight": normal(shape.experts, shape.ff, shape.d),
        "routed.down.weight": normal(shape.experts, shape.d, shape.ff),
    }
    for n, ff in enumerate(shape.shared):
        made |= {f"common{n}.{name}.weight": normal(2, ff, shape.d) for name in ("gate", "up")}
        made |= {f"common{n}.down.weight": normal(2, shape.d, ff)}
    if shape.codes is None:
        return made
    return coded(made, shape) if shape.given else _exact(made, shape)


def coded(floats: Mapping[str, torch.Tensor], shape: Shape) -> Mapping[str, torch.Tensor]:
    """The same weights with those of the experts as the codes and scales that the shape has."""
    made, how = dict(floats), FORMATS[shape.codes or ""]
    for name in [name for name in floats if name.startswith("routed.")]:
        scale_name = name.removesuffix("weight") + "scale"
        made[name] = torch.empty_like(floats[name], dtype=TORCH_DTYPES[how.element])
        scales = []
        for codes, weights in zip(made[name], floats[name], strict=True):  # by expert, as floats of all take much room
            wide = _groups(weights.float(), shape)
            sizes = wide.abs()
            scale = sizes.amax(-1) / how.divisor if how.divisor else sizes.mean(-1)
            scale = scale if shape.group is None else scale.bfloat16()
            quotients = (wide / scale.float().unsqueeze(-1)).clamp(how.lowest, how.highest)
            codes.copy_((quotients if how.floats else quotients.round()).reshape(codes.shape))
            scales.append(scale)
        made[scale_name] = torch.stack(scales)
    return made


def _exact(floats: Mapping[str, torch.Tensor], shape: Shape) -> Mapping[str, torch.Tensor]:
    """Weights that are what quantising makes of them: the codes of `coded`, of which each group has one of the largest,
    by scales that are powers of two.  The format is one whose scale is made of the largest weight.
    """
    made, how = dict(floats), FORMATS[shape.codes or ""]
    given = coded(floats, shape)
    for name in [name for name in floats if name.startswith("routed.")]:
        codes = _groups(given[name].float(), shape).clamp(-how.divisor, how.divisor)
        codes[..., 0] = how.divisor
        scale = given[name.removesuffix("weight") + "scale"].float().log2().round().exp2()
        made[name] = (codes * scale.unsqueeze(-1)).reshape(floats[name].shape).to(floats[name].dtype)
    return made


def _groups(weights: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Weights [.., K] as those of each scale: [.., K / group, group], or the channel as it is."""
    return weights if shape.group is None else weights.unflatten(-1, (-1, shape.group))


def expert_matrix(weights: Mapping[str, torch.Tensor], name: str, expert: int) -> torch.Tensor:
    """float64 [out, in]: what the layer's weight `routed.NAME.weight` of one expert stands for."""
    wide = weights[f"routed.{name}.weight"][expert].double()
    scales = weights.get(f"routed.{name}.scale")
    if scales is None:
        return wide
    scale = scales[expert].double()
    if scale.dim() == 2:
        return wide * scale.repeat_interleave(wide.shape[-1] // scale.shape[-1], -1)
    return wide * scale.unsqueeze(-1)


def _bias(shape: Shape, routing: str) -> list[float]:
    match routing:
        case "skewed":
            return [-1.2 * math.log(expert + 1) for expert in range(shape.experts)]
        case "one":
            return [50.0 - expert if expert < shape.top_k else -50.0 for expert in range(shape.experts)]
        case "half":
            # As many as a token needs stay open.
            closed = min(shape.experts // 2, shape.experts - shape.top_k)
            return [-50.0 if expert < closed else 0.0 for expert in range(shape.experts)]
        case _:
            return [0.0] * shape.experts


def tokens(shape: Shape, count: int, device: torch.device, seed: int) -> torch.Tensor:
    """x [count, d], normal, with 1 in column 0."""
    generator = torch.Generator(device).manual_seed(seed + 1)
    x = torch.randn((count, shape.d), generator=generator, device=device, dtype=torch.float32)
    x[:, 0] = 1.0
    return x.to(TORCH_DTYPES[shape.dtype])
