"""`torch.ops.moec.forward` and `torch.ops.moec.backward`: a step of training as operators behind torch.autograd.

    forward(Tensor[] inputs, Tensor[] weights, str artifact, str variant) -> Tensor[]
    backward(Tensor[] inputs, Tensor[] weights, Tensor[] saved, Tensor[] seeds, str artifact, str variant) -> Tensor[]

inputs    one tensor for each input of the manifest, `(T, *row)`
weights   ordinary tensors in the manifest's order, read as they are at each call
saved     what `forward` gave for `backward` to read; with inputs and weights it is all that autograd keeps
seeds     gradients of the outputs, then of the loss tensors of floats
artifact  the SHA-256 that names the artifact; it must be loaded in the process that runs the operator
variant   one of the artifact's variants, or "" for the best that this processor can run

`forward` gives outputs, loss tensors and saved ones, `backward` the gradients that the manifest lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NoReturn

import torch
from torch.autograd import forward_ad

from moec.errors import GradientError, InputError
from moec.runtime.cuda import operator as cuda
from moec.runtime.forks import threads
from moec.runtime.native import Kernel, kernel
from moec.runtime.recycling import RECYCLED
from moec.runtime.step import Step
from moec.runtime.workspace import WORKSPACES

_SCHEMAS = (
    "forward(Tensor[] inputs, Tensor[] weights, str artifact, str variant) -> Tensor[]",
    "backward(Tensor[] inputs, Tensor[] weights, Tensor[] saved, Tensor[] seeds, str artifact, str variant)"
    " -> Tensor[]",
)
_Tensors = Sequence[torch.Tensor]


def operator() -> torch._ops.OpOverload:
    """The operator `moec::forward`; it and `moec::backward` are registered with torch when it is first asked for."""
    _registration()
    return torch.ops.moec.forward.default


@cache
def _registration() -> torch.library.Library:
    library = torch.library.Library("moec", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides))
    library.impl("forward", _forward, "CPU")
    library.impl("backward", _backward, "CPU")
    library.impl("forward", cuda.forward, "CUDA")
    library.impl("backward", cuda.backward, "CUDA")
    torch.library.register_fake("moec::forward", _fake_forward, lib=library)
    torch.library.register_fake("moec::backward", _fake_backward, lib=library)
    torch.library.register_autograd("moec::forward", _differentiate, setup_context=_remember, lib=library)
    torch.library.register_autograd("moec::backward", _refuse, setup_context=_forget, lib=library)
    torch.library.register_vmap("moec::forward", refuse_vmap, lib=library)
    torch.library.register_vmap("moec::backward", refuse_vmap, lib=library)
    return library


def _forward(inputs: _Tensors, weights: _Tensors, artifact: str, variant: str) -> list[torch.Tensor]:
    code, step = _code(artifact, variant)
    tokens = inputs[0].shape[0]
    results = [RECYCLED.empty(result.shape(tokens), result.dtype) for result in step.results]
    _call(code, "forward", tokens, [*inputs, *weights], results)
    return results


def _backward(
    inputs: _Tensors, weights: _Tensors, saved: _Tensors, seeds: _Tensors, artifact: str, variant: str
) -> list[torch.Tensor]:
    code, step = _code(artifact, variant)
    taken = [*inputs, *weights]
    results = [RECYCLED.empty(taken[i].shape, taken[i].dtype) for i in step.gradients]
    _call(code, "backward", inputs[0].shape[0], [*taken, *saved, *seeds], results)
    return results


def _call(code: Kernel, function: str, tokens: int, taken: _Tensors, results: _Tensors) -> None:
    count = threads()
    workspace = WORKSPACES.take(code.workspace_bytes(tokens, count, f"{function}_workspace_bytes"))
    try:
        code.call(function, count, workspace, *(tensor.contiguous() for tensor in taken), *results)
    finally:
        WORKSPACES.give(workspace)


def _fake_forward(inputs: _Tensors, weights: _Tensors, artifact: str, variant: str) -> list[torch.Tensor]:
    tokens, device = inputs[0].shape[0], inputs[0].device
    _, step = _code(artifact, variant)
    return [torch.empty(result.shape(tokens), dtype=result.dtype, device=device) for result in step.results]


def _fake_backward(
    inputs: _Tensors, weights: _Tensors, saved: _Tensors, seeds: _Tensors, artifact: str, variant: str
) -> list[torch.Tensor]:
    _, step = _code(artifact, variant)
    taken = [*inputs, *weights]
    return [torch.empty(taken[i].shape, dtype=taken[i].dtype, device=taken[0].device) for i in step.gradients]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: list[torch.Tensor]) -> None:
    taken, weights, artifact, variant = inputs
    _, step = _code(artifact, variant)
    saved = output[len(step.outputs) + len(step.loss_tensors) :]
    ctx.save_for_backward(*taken, *weights, *saved)
    ctx.mark_non_differentiable(*(t for i, t in enumerate(output) if i not in step.seeds))
    ctx.set_materialize_grads(False)
    ctx.moec_call = len(taken), len(weights), artifact, variant


def _differentiate(ctx: Any, seeds: list[torch.Tensor | None]) -> tuple[list[torch.Tensor | None], ...]:
    count, weight_count, artifact, variant = ctx.moec_call
    _, step = _code(artifact, variant)
    wanted = [*ctx.needs_input_grad[0], *ctx.needs_input_grad[1]]
    found: list[torch.Tensor | None] = [None] * (count + weight_count)
    if any(seed is not None for seed in seeds):
        tensors = ctx.saved_tensors
        inputs, weights = tensors[:count], tensors[count : count + weight_count]
        given = [_seed(seeds[i], step, i, inputs[0]) for i in step.seeds]
        gradients = torch.ops.moec.backward(
            list(inputs), list(weights), list(tensors[count + weight_count :]), given, artifact, variant
        )
        for i, gradient in zip(step.gradients, gradients, strict=True):
            found[i] = gradient if wanted[i] else None
    return found[:count], found[count:], None, None  # type: ignore[return-value]


def _seed(given: torch.Tensor | None, step: Step, index: int, like: torch.Tensor) -> torch.Tensor:
    """The gradient of result `index` as the kernels read it; zeros where nothing depends on that result.

    like: the first input, for the number of tokens and the device
    """
    result = step.results[index]
    if given is None:
        return torch.zeros(result.shape(like.shape[0]), dtype=result.dtype, device=like.device)
    return given.contiguous()


def _forget(ctx: Any, inputs: tuple[Any, ...], output: list[torch.Tensor]) -> None:
    """Nothing is kept: there is no derivative of gradients."""


def _refuse(ctx: Any, gradients: list[torch.Tensor | None]) -> NoReturn:
    raise GradientError(
        "a compiled layer computes first derivatives only: its gradients cannot be differentiated again. "
        "Leave out `create_graph=True`, or compute what needs second derivatives without the layer."
    )


def _code(artifact: str, variant: str) -> tuple[Kernel, Step]:
    code = kernel(artifact, variant)
    if code.step is None:
        raise GradientError(for_inference_only(code.library.manifest.layer))
    return code, code.step


def refuse_vmap(*_: object) -> NoReturn:
    """What torch calls where `torch.vmap` meets a layer."""
    raise InputError(
        "a compiled layer cannot be called under `torch.vmap`, nor what uses it, such as `torch.func.jacrev`. A call "
        "takes tokens of any leading shape: call it once with all of them, `(..., d)`."
    )


def in_forward_mode() -> bool:
    """Whether derivatives are taken forward (`torch.func.jvp`, `torch.autograd.forward_ad`) around this call."""
    return forward_ad._current_level >= 0  # which `make_dual` and `unpack_dual` go by, too


def refuse_tangents(layer: str, tensors: _Tensors) -> None:
    """Raises GradientError where a tensor has a tangent, of which torch would make none, in silence."""
    if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise GradientError(
            f"{layer}: a compiled layer has no derivatives in forward mode (`torch.func.jvp`, "
            "`torch.autograd.forward_ad`). Use reverse mode: `backward()`, `torch.func.vjp`."
        )


def for_inference_only(layer: str) -> str:
    """What to say where a gradient is asked of a layer that has no backward."""
    return (
        f"{layer}: a gradient is needed, and the layer was compiled without its backward. Compile it with "
        "`moec compile --training` (`moec.compile(..., training=True)`) and load it with "
        "`moec.load(path, training=True)`, or call it under `torch.no_grad()`."
    )
