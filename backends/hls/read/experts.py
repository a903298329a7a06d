"""Experts: `down(act(up x))`, or `down(act(gate x) * up x)`."""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.hls.read.linears import expert_linear
from moec.backends.hls.read.refusal import refuse
from moec.backends.hls.read.terms import Term, Terms
from moec.fixed.interface import Group, Source
from moec.fixed.spec import Activation, Expert, Weights

_ACTIVATIONS = {"relu": Activation.RELU, "gelu": Activation.GELU, "silu": Activation.SILU}


@dataclass(frozen=True)
class Experts:
    """A group of experts: their shape, where their numbers come from, how their weights are stored."""

    shape: Expert
    group: Group
    weights: Weights


def read_experts(terms: Terms, op: ir.Operation, count: int) -> Experts:
    """The experts of `moe.experts` or `moe.shared`.  Raises Unsupported where their program is another."""
    block = op.regions[0].blocks[0]
    x = terms.bind(block.arguments[0], "x", id(op))
    _, (result,) = terms.block(block)
    down = expert_linear(result, op, "the result")
    activated, other = _halves(down.of, op)
    gate = expert_linear(activated[0], op, f"what {activated.kind} is applied to")
    up = None if other is None else expert_linear(other, op, "what the activation is multiplied with")
    linears = [gate, down] if up is None else [gate, up, down]
    for one in linears:
        if one is not down and one.of is not x:
            raise refuse(one.of, op, "an expert's first linears read something else than the token's row")
        if one.weights is not down.weights:
            raise unsupported("hls", op, "the linears of an expert are stored in different formats")
    biases = {one.source.bias is not None for one in linears}
    shape = Expert(_hidden(op, gate.source, terms), _ACTIVATIONS[activated.kind], up is not None, True in biases)
    group = (
        Group(count, None, gate.source, down.source)
        if up is None
        else Group(count, gate.source, up.source, down.source)
    )
    return Experts(shape, group, down.weights)


def _halves(hidden: Term, op: ir.Operation) -> tuple[Term, Term | None]:
    """The activated half of a hidden layer, and what it is multiplied with, if anything."""
    if hidden.kind in _ACTIVATIONS:
        return hidden, None
    if hidden.kind == "mul":
        for one, other in (hidden.parts, hidden.parts[::-1]):
            if one.kind in _ACTIVATIONS:
                return one, other
    names = ", ".join(_ACTIVATIONS)
    raise refuse(
        hidden, op, f"an expert's hidden layer is {names} of a linear, or that times a linear; this is neither"
    )


def _hidden(op: ir.Operation, first: Source, terms: Terms) -> int:
    return terms.shapes[first.weight][1]
