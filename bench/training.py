"""A training step: forward, backward, gradients of x and of every weight; checked against float64."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from bench.cell import TRAINING_WORK, Cell, Timing
from bench.formats import FORMATS
from bench.layer import TORCH_DTYPE, Layer, relative_error
from bench.limits import Prober
from bench.measure import Plan, batches_for, time_rounds
from bench.routes import Run, Unavailable
from bench.routes.table import Trainable

SEED = 11


@dataclass
class Gradients:
    """In float64: of x [T, d], of the router [E, d], of gate_up [2 ff, d] and down [d, ff] of some experts."""

    x: torch.Tensor
    router: torch.Tensor
    experts: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)


def reference(layer: Layer, x: torch.Tensor, dy: torch.Tensor) -> Gradients:
    """The gradients for outputs' gradients `dy`; of the weights of the busiest and of the least busy expert only.

    Expert by expert, because the gradients of all of them would take gigabytes.
    """
    shape, exact = layer.shape, layer.weights("bf16")
    x, dy = x.double(), dy.double()
    router = exact["router"].double().requires_grad_()
    with torch.enable_grad():
        token = x.clone().requires_grad_()
        p = torch.softmax(F.linear(token, router), -1)
        index = p.topk(shape.top_k, -1).indices
        weight = p.gather(-1, index)
        if shape.renormalise:
            weight = weight / weight.sum(-1, keepdim=True)
    counts = torch.bincount(index.flatten(), minlength=shape.experts)
    busy = counts.nonzero().flatten().tolist()
    kept = {max(busy, key=lambda e: counts[e].item()), min(busy, key=lambda e: counts[e].item())}
    dx, d_weight = torch.zeros_like(x), torch.zeros_like(weight)
    experts = {}
    for expert in busy:
        t, slot = (index == expert).nonzero(as_tuple=True)
        rows, gate_up, down = x[t], exact["gate_up"][expert].double(), exact["down"][expert].double()
        wanted = (rows, gate_up, down) if expert in kept else (rows,)
        for value in wanted:
            value.requires_grad_()
        with torch.enable_grad():
            gate, up = F.linear(rows, gate_up).chunk(2, -1)
            out = F.linear(F.silu(gate) * up, down)
        d_weight[t, slot] = (out.detach() * dy[t]).sum(-1)
        found = torch.autograd.grad(out, wanted, dy[t] * weight.detach()[t, slot, None])
        dx.index_add_(0, t, found[0])
        if expert in kept:
            experts[expert] = {"gate_up": found[1], "down": found[2]}
    through_router, d_router = torch.autograd.grad(weight, (token, router), d_weight)
    dx += through_router
    if shape.shared:
        with torch.enable_grad():
            token = x.clone().requires_grad_()
            gate, up = F.linear(token, exact["shared_gate_up"].double()).chunk(2, -1)
            out = F.linear(F.silu(gate) * up, exact["shared_down"].double())
        dx += torch.autograd.grad(out, token, dy)[0]
    return Gradients(dx, d_router, experts)


def _gradient(x: torch.Tensor) -> torch.Tensor:
    if x.grad is None:
        raise RuntimeError("the route gave x no gradient")
    return x.grad


def step(trainable: Trainable, dy: torch.Tensor) -> Run:
    """A call that takes x to the gradient of x, and lets go of the weights' gradients as an optimizer does."""

    def run(x: torch.Tensor) -> torch.Tensor:
        x = x.detach().requires_grad_()
        trainable.run(x).backward(dy)
        trainable.forget()
        return _gradient(x)

    return run


def check(trainable: Trainable, x: torch.Tensor, dy: torch.Tensor, y: torch.Tensor, right: Gradients) -> Timing:
    """One step; relative Frobenius errors of its output and of its gradients, for experts the largest."""
    x = x.detach().requires_grad_()
    out = trainable.run(x)
    out.backward(dy)
    errors = {
        "x": relative_error(_gradient(x), right.x),
        "router": relative_error(trainable.gradient("router"), right.router),
    }
    for expert, gradients in right.experts.items():
        for name, gradient in gradients.items():
            error = relative_error(trainable.gradient(name)[expert], gradient)
            errors[name] = max(error, errors.get(name, 0.0))
    trainable.forget()
    return Timing(relative_error(out, y), errors)


def measure_training_cell(
    layer: Layer, format: str, routing: str, tokens: int, routes: Mapping[str, Trainable], prober: Prober, plan: Plan
) -> Cell:
    """Check the gradients of every route against float64, then time steps of all of them in rounds."""
    exact = layer.inputs(tokens, batches_for(tokens), routing)
    dtype = TORCH_DTYPE[FORMATS[format].x]
    dy = torch.randn(exact[0].shape, generator=torch.Generator().manual_seed(SEED)).to(dtype)
    inputs = [x.to(dtype) for x in exact]
    y, right = layer.reference(exact[0]), reference(layer, exact[0], dy)
    timings, skipped = {}, {}
    for name, trainable in routes.items():
        try:
            begun = time.perf_counter()
            timings[name] = check(trainable, inputs[0], dy, y, right)
            timings[name].checked_seconds = time.perf_counter() - begun
        except Unavailable as why:
            skipped[name] = str(why)
    steps = {name: step(routes[name], dy) for name in timings}
    limits, others = time_rounds(timings, steps, inputs, prober, plan)
    return Cell(
        shape=layer.shape.name,
        format=format,
        mode="training",
        routing=routing,
        tokens=tokens,
        threads=prober.threads,
        flop=TRAINING_WORK * layer.flop(tokens),
        touched_bytes=TRAINING_WORK * layer.touched_bytes(exact, FORMATS[format]),
        limits=limits,
        timings=timings,
        skipped=skipped,
        other_cores=others,
    )
