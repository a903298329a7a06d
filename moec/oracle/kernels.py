"""What kernel-level operations of the `moe` dialect compute."""

from dataclasses import dataclass, replace

import numpy as np
from torch_mlir import ir

from moec.dialect.parts import part_of
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
    """The epilogue's values for every row and column, in plan order; NaN for rows of experts that are not its own."""
    offsets, slots = plan
    own = part_of(op)
    per_token = integer(op, "slots_per_token")
    columns = _matrix(op, weights[0], 0).shape[1]
    nothing = 0.0 if own is None else np.nan
    out = [np.full((len(slots), columns), nothing) for _ in terminator(op.regions[0]).operands]
    for group in _groups(offsets, slots):
        if own is not None and group.expert not in own:
            continue
        group = group if own is None else replace(group, expert=own.index(group.expert))
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
    return finished(op.regions[1], _summed(op, rows, tokens, slots), scope)


def _summed(op: ir.Operation, rows: Array, tokens: Array, slots: Array) -> Array:
    total = np.zeros((len(tokens), rows.shape[1]))
    np.add.at(total, slots // integer(op, "slots_per_token"), rows)
    return total


def _join_rows(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    offsets, *rows = inputs
    out = np.empty_like(rows[0])
    for product, mine in zip(op.operands[1:], rows, strict=True):
        for expert in part_of(product.owner.operation) or ():
            own = slice(offsets[expert], offsets[expert + 1])
            out[own] = mine[own]
    return [out]


def _sum_rows(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    rows, tokens, _, slots = inputs
    return finished(op.regions[0], _summed(op, rows, tokens, slots), scope)


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
    "moe.join_rows": _join_rows,
    "moe.sum_rows": _sum_rows,
}
