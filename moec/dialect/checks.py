"""Verifiers of the `moe` dialect.  Each returns whether the operation is sound and says what is not, at its place."""

from collections.abc import Callable, Sequence
from typing import Any

from torch_mlir import ir

from moec.dialect.formats import format_of
from moec.dialect.parts import part_of

KINDS = ("row", "scalar", "token", "token_scalar", "slot", "column", "expert")
FINISH_KINDS = ("token", "token_scalar")
ORDERS = ("token", "choice", "score")


class Unsound(Exception):
    """Why an operation is not sound; `sound` turns it into an MLIR error."""


def sound(check: Callable[[Any], None]) -> Callable[[Any], bool]:
    """Make a verifier of a function that raises `Unsound`."""

    def verify(op: Any) -> bool:
        try:
            check(op)
        except Unsound as why:
            op.location.emit_error(f"'{op.operation.name}' op {why}")
            return False
        except (KeyError, IndexError, ValueError, TypeError):  # IRDL has not checked the operation's form yet
            op.location.emit_error(
                f"'{op.operation.name}' op lacks an attribute or operand, or has one of a wrong kind"
            )
            return False
        return True

    verify.__doc__ = check.__doc__
    return verify


def require(condition: bool, why: str) -> None:
    if not condition:
        raise Unsound(why)


def tensor(value: ir.Value, what: str) -> ir.RankedTensorType:
    require(isinstance(value.type, ir.RankedTensorType), f"{what} must be a ranked tensor, not {value.type}")
    return ir.RankedTensorType(value.type)


def shape(type_: ir.RankedTensorType) -> tuple[int | None, ...]:
    """The dimensions of a tensor type, None where dynamic."""
    return tuple(None if type_.is_dynamic_dim(i) else type_.get_dim_size(i) for i in range(type_.rank))


def expect(value: ir.Value, what: str, dims: Sequence[int | None], element: str | None = None) -> None:
    """`value` must be a tensor of these dimensions (None: dynamic) and, if given, this element type."""
    type_ = tensor(value, what)
    want = "x".join("?" if n is None else str(n) for n in dims)
    require(shape(type_) == tuple(dims), f"{what} must be tensor<{want}x...>, not {type_}")
    if element:
        require(str(type_.element_type) == element, f"{what} must hold {element}, not {type_.element_type}")


def batched(value: ir.Value, what: str, rank: int | None = None) -> tuple[int | None, ...]:
    """Dimensions behind the dynamic leading one."""
    type_ = tensor(value, what)
    dims = shape(type_)
    require(bool(dims) and dims[0] is None, f"{what} must have a dynamic leading dimension, not {type_}")
    require(all(n is not None for n in dims[1:]), f"{what} may be dynamic in its leading dimension only, not {type_}")
    require(rank is None or len(dims) == rank, f"{what} must have rank {rank}, not {type_}")
    return dims[1:]


def positive(op: Any, *names: str) -> None:
    for name in names:
        require(ir.IntegerAttr(getattr(op, name)).value >= 1, f"{name} must be at least 1")


def yielded(region: ir.Region, what: str, terminator: str = "moe.yield") -> list[ir.Value]:
    require(len(region.blocks) == 1, f"{what} must have one block")
    operations = list(region.blocks[0].operations)
    ends = bool(operations) and operations[-1].operation.name == terminator
    require(ends, f"{what} must end in {terminator}")
    return list(operations[-1].operation.operands)


def arguments(region: ir.Region, types: Sequence[ir.Type], what: str) -> None:
    have = [argument.type for argument in region.blocks[0].arguments]
    require(
        have == list(types),
        f"{what} must take ({', '.join(map(str, types))}), not ({', '.join(map(str, have))})",
    )


def row_type(value: ir.Value) -> ir.Type:
    """The type of one row (or one expert's slice) of a tensor: its leading dimension dropped."""
    type_ = ir.RankedTensorType(value.type)
    return ir.RankedTensorType.get(list(type_.shape)[1:], type_.element_type, loc=ir.Location.unknown(type_.context))


@sound
def route(op: Any) -> None:
    batched(op.x, "x")
    (slots,) = batched(op.index, "index", 2)
    expect(op.index, "index", (None, slots), "i32")
    expect(op.weight, "weight", (None, slots), "f32")
    out = yielded(op.body, "the body", "moe.yield_choice")
    arguments(op.body, [row_type(op.x)], "the body")
    expect(out[0], "the yielded index", (slots,), "i32")
    expect(out[1], "the yielded weight", (slots,), "f32")


@sound
def capacity(op: Any) -> None:
    positive(op, "experts")
    (slots,) = batched(op.index, "index", 2)
    expect(op.index, "index", (None, slots), "i32")
    expect(op.weight, "weight", (None, slots), "f32")
    require(op.kept.type == op.index.type, "kept must have the type of index")
    require(ir.FloatAttr(op.factor).value > 0, "factor must be positive")
    require(ir.IntegerAttr(op.minimum).value >= 0, "minimum must not be negative")
    order = ir.StringAttr(op.order).value
    require(order in ORDERS, f"order must be one of {', '.join(ORDERS)}, not {order!r}")


def sorted_slots(op: Any) -> None:
    positive(op, "experts")
    (slots,) = batched(op.index, "index", 2)
    expect(op.index, "index", (None, slots), "i32")
    expect(op.offsets, "offsets", (ir.IntegerAttr(op.experts).value + 1,), "i32")
    expect(op.slots, "slots", (None,), "i32")


@sound
def dispatch(op: Any) -> None:
    sorted_slots(op)
    batched(op.x, "x", 2)
    require(op.rows.type == op.x.type, "rows must have the type of x")


@sound
def plan(op: Any) -> None:
    sorted_slots(op)
    require(ir.IntegerAttr(op.direct_max_tokens).value >= 0, "direct_max_tokens must not be negative")


def expert_body(op: Any, rows: ir.Value) -> None:
    batched(rows, "the rows", 2)
    (width,) = batched(op.out, "the result", 2)
    expect(op.out, "the result", (None, width), "f32")
    (out,) = yielded(op.body, "the body")
    arguments(op.body, [row_type(rows)], "the body")
    expect(out, "the yielded row", (width,), "f32")


def owned(op: Any, experts: int) -> None:
    """Every parameter whose own slice the body takes must have one slice an expert."""
    for inner in op.body.blocks[0].operations:
        if inner.operation.name == "moe.own":
            type_ = tensor(inner.operation.operands[0], "a parameter")
            require(shape(type_)[:1] == (experts,), f"a parameter must have {experts} experts, not {type_}")


@sound
def experts(op: Any) -> None:
    (ends,) = shape(tensor(op.offsets, "offsets"))
    require(ends is not None and ends >= 2, "offsets must hold the number of experts plus one")
    expect(op.offsets, "offsets", (ends,), "i32")
    expert_body(op, op.rows)
    owned(op, (ends or 0) - 1)


@sound
def combine(op: Any) -> None:
    (width,) = batched(op.rows, "rows", 2)
    batched(op.weight, "weight", 2)
    expect(op.slots, "slots", (None,), "i32")
    expect(op.out, "the result", (None, width), "f32")


@sound
def shared(op: Any) -> None:
    positive(op, "count")
    expert_body(op, op.x)
    owned(op, ir.IntegerAttr(op.count).value)


@sound
def sliced(op: Any) -> None:
    whole = op.operation.operands[0]
    require(bool(shape(tensor(whole, "the operand"))), f"the operand must have a leading axis, not {whole.type}")
    require(op.results[0].type == row_type(whole), f"the result must be {row_type(whole)}, not {op.results[0].type}")


@sound
def top_k(op: Any) -> None:
    values = shape(tensor(op.values, "values"))
    k = ir.IntegerAttr(op.k).value
    require(bool(values), "values must have at least one axis")
    require(1 <= k <= (values[-1] or 0), f"k must lie between 1 and {values[-1]}, not {k}")
    expect(op.index, "the result", (*values[:-1], k), "i32")


@sound
def top_p(op: Any) -> None:
    (count,) = shape(tensor(op.values, "values"))
    most = ir.IntegerAttr(op.most).value
    require(1 <= most <= (count or 0), f"most must lie between 1 and {count}, not {most}")
    require(0 < ir.FloatAttr(op.mass).value <= 1, "mass must lie in (0, 1]")
    expect(op.index, "the result", (most,), "i32")


@sound
def take(op: Any) -> None:
    values, index = tensor(op.values, "values"), tensor(op.index, "index")
    require(str(index.element_type) == "i32", f"index must hold i32, not {index.element_type}")
    require(shape(values)[:-1] == shape(index)[:-1], f"leading axes of {values} and {index} must agree")
    expect(op.out, "the result", shape(index), str(values.element_type))


@sound
def chosen(op: Any) -> None:
    index, mask = tensor(op.index, "index"), tensor(op.mask, "the result")
    require(str(index.element_type) == "i32", f"index must hold i32, not {index.element_type}")
    expect(op.mask, "the result", (*shape(index)[:-1], shape(mask)[-1]), "i1")


@sound
def element(op: Any) -> None:
    type_ = tensor(op.tensor, "the tensor")
    kind = ir.StringAttr(op.kind).value
    require(kind in KINDS, f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    require(type_.rank == 2, f"the tensor must have rank 2, not {type_}")
    require(op.element.type == type_.element_type, f"the result must be {type_.element_type}, not {op.element.type}")


def matmul(op: Any) -> tuple[int, int]:
    """Checks what the matmuls share; returns (experts, columns)."""
    (inner,) = batched(op.lhs, "lhs", 2)
    require(len(op.weights) > 0, "needs at least one weights operand")
    dims = shape(tensor(op.weights[0], "weights operand 0"))
    require(len(dims) == 3 and None not in dims, f"weights must be tensor<ExNxK>, not {op.weights[0].type}")
    experts, columns = dims[0] or 0, dims[2 if op.transposed else 1] or 0
    expect(op.weights[0], "weights", (experts, inner, columns) if op.transposed else (experts, columns, inner))
    require(len({format_of(w) for w in op.weights}) == 1, "weights must all have one format")
    for out in op.operation.results:
        expect(out, "the result", (None, columns))
    return experts, columns


def grouped(op: Any, experts: int) -> None:
    """`experts`: of the weights; a product may have those of some of its plan's experts."""
    part = part_of(op.operation)
    if part is None:
        expect(op.offsets, "offsets", (experts + 1,), "i32")
    else:
        (ends,) = shape(tensor(op.offsets, "offsets"))
        expect(op.offsets, "offsets", (ends,), "i32")
        ascending = list(part) == sorted(set(part)) and all(0 <= expert < (ends or 0) - 1 for expert in part)
        require(ascending and len(part) == experts, f"part must be {experts} experts of the plan, in order")
    expect(op.slots, "slots", (None,), "i32")
    positive(op, "slots_per_token")


def region_elements(op: Any, region: ir.Region, kinds: Sequence[str], experts: int, columns: int) -> None:
    """The tensors that a region reads by `moe.element` must have the shapes of their kinds."""
    slots = ir.IntegerAttr(op.slots_per_token).value if "slots_per_token" in op.operation.attributes else 1
    dims: dict[str, tuple[int | None, ...]] = {
        "row": (None, columns),
        "scalar": (None, 1),
        "token": (None, columns),
        "token_scalar": (None, 1),
        "slot": (None, slots),
        "column": (experts, columns),
        "expert": (experts, 1),
    }
    for inner in region.blocks[0].operations:
        if inner.operation.name == "moe.element":
            kind = ir.StringAttr(inner.operation.attributes["kind"]).value
            require(kind in kinds, f"an element here must be one of {', '.join(kinds)}, not {kind!r}")
            expect(inner.operation.operands[0], f"an element of kind {kind!r}", dims[kind])


def scalar_region(op: Any, region: ir.Region, what: str, takes: int, gives: Sequence[ir.Type]) -> None:
    out = yielded(region, what)
    arguments(region, [ir.F32Type.get(op.context)] * takes, what)
    wanted = ", ".join(map(str, gives))
    require(
        [v.type for v in out] == list(gives), f"{what} must yield {wanted}, not {', '.join(str(v.type) for v in out)}"
    )
    require(len(set(gives)) == 1, "results must all have one type")


def elements(op: Any) -> list[ir.Type]:
    """The element types of the results."""
    return [tensor(result, "the result").element_type for result in op.operation.results]


@sound
def dense_matmul(op: Any) -> None:
    experts, columns = matmul(op)
    require(experts == 1, f"a dense product has one expert, not {experts}")
    scalar_region(op, op.epilogue, "the epilogue", len(op.weights), elements(op))
    region_elements(op, op.epilogue, KINDS, experts, columns)


@sound
def grouped_matmul(op: Any) -> None:
    experts, columns = matmul(op)
    grouped(op, experts)
    scalar_region(op, op.epilogue, "the epilogue", len(op.weights), elements(op))
    region_elements(op, op.epilogue, KINDS, experts, columns)


@sound
def grouped_matmul_combine(op: Any) -> None:
    experts, columns = matmul(op)
    require(part_of(op.operation) is None, "rows of some experts are joined with others before they are added up")
    grouped(op, experts)
    batched(op.tokens, "tokens")
    scalar_region(op, op.epilogue, "the epilogue", len(op.weights), [ir.F32Type.get(op.context)])
    scalar_region(op, op.finish, "the finish", 1, elements(op))
    region_elements(op, op.epilogue, KINDS, experts, columns)
    region_elements(op, op.finish, FINISH_KINDS, experts, columns)
