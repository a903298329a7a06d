"""Linears of experts: where their weights come from, and how these are stored."""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.hls.read.refusal import refuse
from moec.backends.hls.read.terms import Term, peel_bias
from moec.fixed.interface import Source
from moec.fixed.spec import Weights

_FORMATS = {"int8": Weights.INT8, "int4": Weights.INT4, "ternary": Weights.TERNARY}


@dataclass(frozen=True)
class Linear:
    """A linear of `of`; `weights` says how its codes are stored."""

    of: Term
    source: Source
    weights: Weights


def expert_linear(term: Term, op: ir.Operation, what: str) -> Linear:
    """The linear with its bias that a term of an expert is.  Raises Unsupported where it is something else."""
    linear, bias = peel_bias(term)
    if linear.kind != "linear":
        raise refuse(term, op, f"{what} is not a linear of the expert's own weights, with or without a bias")
    weight, of = linear.parts
    if weight.kind != "own":
        raise refuse(linear, op, f"{what} multiplies with weights that are not the expert's own")
    offset = None
    if bias is not None:
        if bias.kind != "own" or bias[0].kind != "argument":
            raise refuse(term, op, f"something other than a bias of its own is added to {what}")
        offset = str(bias[0].value)
    name, scale, weights = _stored(weight[0], op, what)
    return Linear(of, Source(name, scale, offset), weights)


def _stored(term: Term, op: ir.Operation, what: str) -> tuple[str, str | None, Weights]:
    """The names of the weights and of their scales, and their format."""
    if term.kind == "argument":
        return str(term.value), None, Weights.FIXED16
    if term.kind != "stored":
        raise refuse(term, op, f"the weights of {what} are computed from other tensors")
    form, _, groups = str(term.value).partition(" ")
    if form not in _FORMATS:
        raise refuse(term, op, f"{what} is stored as `{form}`; hardware multiplies codes that are whole numbers")
    if groups != "1":
        raise refuse(
            term, op, f"{what} has {groups} scales a channel; `{form}(per = channel)` has one, as hardware needs"
        )
    if len(term.parts) == 1 and term[0].kind == "argument":
        return str(term[0].value), None, _FORMATS[form]
    if len(term.parts) == 2 and term[0].kind == "argument":
        scale = term[1][0] if term[1].kind == "reshaped" else term[1]
        if scale.kind == "argument":
            return str(term[0].value), str(scale.value), _FORMATS[form]
    raise refuse(term, op, f"the weights of {what} are computed from other tensors")
