"""Routers: logits of a linear, scores, the largest of them, weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.hls.read.refusal import refuse
from moec.backends.hls.read.terms import Term, Terms, number, peel_bias
from moec.fixed.interface import Source
from moec.fixed.spec import Router, Score

_SCORES = {"softmax": Score.SOFTMAX, "sigmoid": Score.SIGMOID}


@dataclass(frozen=True)
class Read:
    """A router, where its numbers come from, and the name of the input that chooses its gate."""

    router: Router
    source: Source
    selection: str | None
    task: str | None


@dataclass(frozen=True)
class _Weight:
    """How a choice is weighted: `of` the logits; `chosen` where the softmax is one of those only."""

    of: Term
    score: Score
    chosen: bool
    renorm: bool
    scale: float


def read_router(terms: Terms, op: ir.Operation, experts: int) -> Read:
    """The router of a `moe.route`.  Raises Unsupported where its program is none that hardware has."""
    block = op.regions[0].blocks[0]
    x = terms.bind(block.arguments[0], "x", id(op))
    _, (choice, weight) = terms.block(block)
    if choice.kind != "top_k":
        raise refuse(choice, op, "experts are not chosen as the K largest of all scores")
    key, slots = choice[0], choice.value
    found = _weight(weight, choice, op)
    selection = _selection(key, found, op)
    logits, task, tasks = _gate(found.of, op)
    linear, bias = peel_bias(logits)
    if linear.kind != "linear" or linear[0].kind != "argument" or linear[1] is not x:
        raise refuse(linear, op, "logits are no linear of the token's row")
    if bias is not None and bias.kind != "argument":
        raise refuse(logits, op, "something other than a bias is added to the logits")
    outputs = terms.shapes[str(linear[0].value)][0]
    if outputs != experts * tasks:
        raise refuse(linear, op, f"there are {outputs} logits for {experts} experts")
    router = Router(
        score=found.score,
        over="chosen" if found.chosen else "all",
        bias=bias is not None,
        selection=selection is not None,
        slots=int(slots) if isinstance(slots, int) else 0,
        renorm=found.renorm,
        scale=found.scale,
        tasks=tasks,
    )
    source = Source(str(linear[0].value), None, None if bias is None else str(bias.value))
    return Read(router, source, selection, task)


def _weight(weight: Term, choice: Term, op: ir.Operation) -> _Weight:
    term, scale = _scaled(weight, 1.0)
    if term.kind == "softmax" and _taken(term[0], choice) is not None:
        return _Weight(term[0][0], Score.SOFTMAX, True, False, scale)
    if term.kind == "div":  # of what is chosen, by its sum
        share = _taken(term[0], choice)
        if share is not None and term[1].kind == "sum" and term[1][0] is term[0]:
            of, score = _score(share)
            return _Weight(of, score, False, True, scale)
    whole = _taken(term, choice)
    if whole is None:
        raise refuse(term, op, "weights are not the chosen experts' scores")
    whole, scale = _scaled(whole, scale)
    if whole.kind == "div" and whole[1].kind == "sum" and _taken(whole[1][0], choice) is whole[0]:
        of, score = _score(whole[0])
        return _Weight(of, score, False, True, scale)
    of, score = _score(whole)
    return _Weight(of, score, False, False, scale)


def _scaled(term: Term, scale: float) -> tuple[Term, float]:
    """What a constant is multiplied with, and the product of such constants."""
    while term.kind == "mul" and (factor := number(term[1])) is not None:
        term, scale = term[0], scale * factor
    return term, scale


def _taken(term: Term, choice: Term) -> Term | None:
    """What is read at the chosen positions; None where the term is something else."""
    return term[0] if term.kind == "take" and term[1] is choice else None


def _score(term: Term) -> tuple[Term, Score]:
    """The logits of a score, and what makes it of them."""
    return (term[0], _SCORES[term.kind]) if term.kind in _SCORES else (term, Score.IDENTITY)


def _selection(key: Term, found: _Weight, op: ir.Operation) -> str | None:
    """The name of what is added to scores for the choice; None where experts are chosen by scores or logits."""
    if key is found.of or (key.kind in _SCORES and key[0] is found.of):
        return None  # each of these orders experts as the logits do
    if key.kind == "add":
        for one, other in (key.parts, key.parts[::-1]):
            of, score = _score(one)
            if of is found.of and score is found.score and other.kind == "argument":
                return str(other.value)
    raise refuse(key, op, "experts are chosen by something else than the scores that weigh them, with or without a "
                 "stored number for each; choice within groups of experts is among that")  # fmt: skip


def _gate(logits: Term, op: ir.Operation) -> tuple[Term, str | None, int]:
    """All gates' logits, the input that chooses one, and how many there are."""
    if logits.kind != "part":
        return logits, None, 1
    whole, index = logits.parts
    named = index.kind == "row" and index[0].kind == "argument"
    if whole.kind != "reshaped" or not named or not isinstance(whole.value, tuple) or len(whole.value) != 2:
        raise refuse(logits, op, "a gate is chosen by something else than an input i32 with one number a token")
    return whole[0], str(index[0].value), whole.value[0]
