"""Verifiers of the operations that training needs."""

from typing import Any

from torch_mlir import ir

from moec.dialect.checks import batched, expect, positive, require, row_type, shape, sound, tensor, yielded


@sound
def map_rows(op: Any) -> None:
    batched(op.like, "like")
    batched(op.out, "the result")
    (out,) = yielded(op.body, "the body")
    require(not list(op.body.blocks[0].arguments), "the body takes no arguments")
    require(out.type == row_type(op.out), f"the body must yield {row_type(op.out)}, not {out.type}")


def _plan(op: Any) -> int:
    """Checks offsets and slots; returns the number of experts."""
    (ends,) = shape(tensor(op.offsets, "offsets"))
    require(ends is not None and ends >= 2, "offsets must hold the number of experts plus one")
    expect(op.offsets, "offsets", (ends,), "i32")
    expect(op.slots, "slots", (None,), "i32")
    positive(op, "slots_per_token")
    return (ends or 0) - 1


def _product(op: Any, experts: int) -> None:
    (columns,), (inner,) = batched(op.a, "a", 2), batched(op.b, "b", 2)
    expect(op.out, "the result", (experts, columns, inner))


@sound
def weight_gradient(op: Any) -> None:
    _product(op, _plan(op))


@sound
def dense_weight_gradient(op: Any) -> None:
    _product(op, 1)


@sound
def group_sum(op: Any) -> None:
    (columns,) = batched(op.a, "a", 2)
    require(len(op.factor) <= 1, "there is at most one factor")
    for factor in op.factor:
        expect(factor, "factor", (None, 1), "f32")
    expect(op.out, "the result", (_plan(op), columns))


@sound
def dense_group_sum(op: Any) -> None:
    (columns,) = batched(op.a, "a", 2)
    expect(op.out, "the result", (1, columns))


@sound
def slot_values(op: Any) -> None:
    expect(op.rows, "rows", (None, 1), "f32")
    expect(op.slots, "slots", (None,), "i32")
    batched(op.tokens, "tokens")
    (slots,) = batched(op.out, "the result", 2)
    expect(op.out, "the result", (None, slots), "f32")


@sound
def row_values(op: Any) -> None:
    (slots,) = batched(op.values, "values", 2)
    expect(op.values, "values", (None, slots), "f32")
    expect(op.slots, "slots", (None,), "i32")
    expect(op.out, "the result", (None, 1), "f32")


@sound
def count(op: Any) -> None:
    (slots,) = batched(op.index, "index", 2)
    expect(op.index, "index", (None, slots), "i32")
    (experts,) = shape(tensor(op.out, "the result"))
    require(experts is not None, "the number of experts must be static")
    expect(op.out, "the result", (experts,), "i32")


@sound
def put(op: Any) -> None:
    index, out = tensor(op.index, "index"), tensor(op.out, "the result")
    require(str(index.element_type) == "i32", f"index must hold i32, not {index.element_type}")
    expect(op.values, "values", shape(index), str(out.element_type))
    require(out.rank >= 1, "the result must have an axis")
    expect(op.out, "the result", (*shape(index)[:-1], shape(out)[-1]), str(ir.F32Type.get(op.context)))
