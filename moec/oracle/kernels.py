"""What kernel-level operations of the `moe` dialect compute."""

from dataclasses import dataclass

import numpy as np
from torch_mlir import ir

from moec.oracle import routing
from moec.oracle.scope import Array, Meaning, Scope, integer, terminator


@dataclass(frozen=True)
class Group:
    """The rows of one expert: where they stand in plan order and which slots they came from."""

    expert: int
    rows: Array
    slots: Array


def _plan(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    return list(routing.plan(inputs[0], integer(op, "experts")))


def _groups(offsets: Array, slots: Array) -> list[Group]:
    ends = zip(range(len(offsets) - 1), offsets[:-1], offsets[1:], strict=True)
    return [Group(e, np.arange(a, b), slots[a:b]) for e, a, b in ends if b > a]


def _region(
    region: ir.Region, group: Group, accumulators: list[Array], slots_per_token: int, scope: Scope
) -> list[Array]:
    """What an epilogue or finish region makes of the accumulators of a group, each tensor<RxN>."""
    tokens = group.slots // slots_per_token
    out = scope.run(
        region.blocks[0], accumulators, expert=group.expert, rows=group.rows, slots=group.slots, tokens=tokens
    )
    return [np.broadcast_to(one, accumulators[0].shape) for one in out]


def _element(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    (whole,) = inputs
    match ir.StringAttr(op.attributes["kind"]).value:
        case "row" | "scalar":
            return [whole[scope.rows]]
        case "token" | "token_scalar":
            return [whole[scope.tokens]]
        case "slot":
            return [whole.ravel()[scope.slots][:, None]]
        case _:  # column, expert
            return [whole[scope.expert][None, :]]


def _matmul(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    lhs, *weights = inputs
    everything = np.arange(len(lhs))
    group = Group(0, everything, everything)
    return _region(op.regions[0], group, [lhs @ _matrix(op, w, 0) for w in weights], 1, scope)


def _matrix(op: ir.Operation, weights: Array, expert: int) -> Array:
    """What rows are multiplied by from the right."""
    mine: Array = weights[expert]
    return mine if "transposed" in op.attributes else mine.T


def _contributions(op: ir.Operation, lhs: Array, plan: list[Array], weights: list[Array], scope: Scope) -> list[Array]:
    """The epilogue's values for every row and column, in plan order."""
    offsets, slots = plan
    per_token = integer(op, "slots_per_token")
    columns = _matrix(op, weights[0], 0).shape[1]
    out = [np.zeros((len(slots), columns)) for _ in terminator(op.regions[0]).operands]
    for group in _groups(offsets, slots):
        rows = lhs[group.slots // per_token if integer(op, "gather") else group.rows]
        accumulators = [rows @ _matrix(op, w, group.expert) for w in weights]
        for whole, part in zip(out, _region(op.regions[0], group, accumulators, per_token, scope), strict=True):
            whole[group.rows] = part
    return out


def _grouped_matmul(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    lhs, offsets, slots, *weights = inputs
    return _contributions(op, lhs, [offsets, slots], weights, scope)


def _grouped_matmul_combine(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    lhs, tokens, offsets, slots, *weights = inputs
    (rows,) = _contributions(op, lhs, [offsets, slots], weights, scope)
    total = np.zeros((len(tokens), rows.shape[1]))
    np.add.at(total, slots // integer(op, "slots_per_token"), rows)
    return finished(op.regions[1], total, scope)


def finished(region: ir.Region, total: Array, scope: Scope) -> list[Array]:
    """What a finish region makes of the sums of all tokens, tensor<TxN>."""
    everything = np.arange(len(total))
    return _region(region, Group(0, everything, everything), [total], 1, scope)


MEANING: dict[str, Meaning] = {
    "moe.plan": _plan,
    "moe.element": _element,
    "moe.matmul": _matmul,
    "moe.grouped_matmul": _grouped_matmul,
    "moe.grouped_matmul_combine": _grouped_matmul_combine,
}
