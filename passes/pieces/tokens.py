"""The pieces of a layer that run where the tokens are: route, capacity, shared, collect."""

from dataclasses import replace

from torch_mlir import ir
from torch_mlir.dialects import arith, tensor

from moec.dialect import CollectOp, SharedOp
from moec.passes.pieces.draft import Argument, Draft, Result, used
from moec.passes.pieces.parts import Parts, Shared
from moec.passes.pieces.resize import Resizing, captured, fill
from moec.passes.rewriting import dims, element_type, fill_region, integer, terminator, yield_value

DYNAMIC = ir.ShapedType.get_dynamic_size


def route(parts: Parts) -> ir.Module:
    """Inputs of the layer to `index` [T, K] i32 and `weight` [T, K] f32, and what auxiliary losses are made of."""
    ends = terminator(parts.function.regions[0].blocks[0]).operands
    losses = [(name, value) for (name, role), value in zip(_results(parts), ends, strict=True) if role == "loss"]
    wanted = [*parts.route.operation.results, *(value for _, value in losses)]
    draft = Draft(parts, "route", used(parts, wanted, groups=["router"]), ("moe.routed", "moe.losses"))
    with ir.InsertionPoint(draft.block), parts.route.location:
        index, weight, *others = [draft.take(value) for value in wanted]
    results = [Result(name, value, "loss") for (name, _), value in zip(losses, others, strict=True)]
    return draft.finish([Result("index", index), Result("weight", weight), *results])


def capacity(parts: Parts) -> ir.Module | None:
    """`index` and `weight` of a whole batch to `kept`, the index without the slots that overflow an expert."""
    op = parts.capacity
    if op is None:
        return None
    given = [Argument(n, v.type, "input", v) for n, v in (("index", op.index), ("weight", op.weight))]
    draft = Draft(parts, "capacity", given)
    with ir.InsertionPoint(draft.block), op.location:
        kept = draft.take(op.kept)
    return draft.finish([Result("kept", kept)])


def shared(parts: Parts, name: str = "shared") -> ir.Module | None:
    """The tokens to what shared experts add to them, f32 [T, N] each, by `Shared.terms`."""
    if not parts.shared:
        return None
    given = used(parts, [one.op.out for one in parts.shared], groups=[one.name for one in parts.shared])
    held = [one if one.role == "input" else replace(one, type=parts.held(one.stands)) for one in given]
    draft = Draft(parts, name, held)
    results = []
    for one in parts.shared:
        with ir.InsertionPoint(draft.block), one.op.location:
            alone = range(one.count) if len(one.terms) > 1 else [None]
            values = [_added(draft, one, number) for number in alone]
        results += [Result(n, v, element=parts.result_element) for n, v in zip(one.terms, values, strict=True)]
    return draft.finish(results)


def _added(draft: Draft, group: Shared, number: int | None) -> ir.Value:
    """What one expert of a group adds, or all of them."""
    op, program = group.op, group.op.body.blocks[0]
    leaf = draft.take if number is None else lambda whole: _expert(draft.take(whole), number)
    known = captured(draft, program, Resizing(leaf))
    made = SharedOp(draft.take(op.x), integer(group.count if number is None else 1), op.out.type)
    fill(made.body, program, known, *draft.parts.hidden(program))
    return made.out


def _expert(whole: ir.Value, number: int) -> ir.Value:
    """One expert's part of a parameter, its leading axis 1."""
    shape = dims(whole)
    type_ = ir.RankedTensorType.get([1, *shape[1:]], element_type(whole))
    rest = [0] * (len(shape) - 1)
    return tensor.extract_slice(type_, whole, [], [], [], [number, *rest], [1, *shape[1:]], [1] * len(shape))


def collect(parts: Parts, name: str = "collect") -> ir.Module:
    """Rows of experts and shared experts' terms to the layer's outputs.

    Inputs: `rows` [T, K, N] f32, `places` [T, K] i32, every term of shared experts [T, N] f32, and what else the end of
    the layer reads.
    """
    combine, slots = parts.combine, dims(parts.combine.weight)[1]
    i32, f32 = ir.IntegerType.get_signless(32), ir.F32Type.get()
    rows = ir.RankedTensorType.get([DYNAMIC(), slots, dims(combine.out)[1]], f32)
    places = ir.RankedTensorType.get([DYNAMIC(), slots], i32)
    ends = terminator(parts.function.regions[0].blocks[0]).operands
    wanted = [(result, end) for (result, role), end in zip(_results(parts), ends, strict=True) if role is None]
    terms = [
        Argument(term, one.op.out.type, "input", None if one.apart else one.op.out)
        for one in parts.shared
        for term in one.terms
    ]
    stops = [combine.out, *(one.op.out for one in parts.shared)]
    rest = used(parts, [end for _, end in wanted], stops)
    summed = [Argument("rows", rows, "input"), Argument("places", places, "input")]
    draft = Draft(parts, name, [*summed, *terms, *rest])
    with ir.InsertionPoint(draft.block), combine.location:
        total = CollectOp(draft.arguments["rows"], draft.arguments["places"], combine.out.type)
        block = fill_region(total.finish, [f32])
        with ir.InsertionPoint(block):
            yield_value(block.arguments[0])
        draft.known[combine.out] = total.out
        for one in parts.shared:
            if one.apart:
                _add_apart(draft, one)
        return draft.finish([Result(result, draft.take(end)) for result, end in wanted])


def _add_apart(draft: Draft, group: Shared) -> None:
    """What a group of shared experts is added to gets its terms one after the other."""
    (use,) = group.op.out.uses
    addition = use.owner.operation
    (other,) = [value for value in addition.operands if value != group.op.out]
    total = draft.take(other)
    for name in group.terms:
        total = arith.addf(total, draft.arguments[name])
    draft.known[addition.results[0]] = total


def _results(parts: Parts) -> list[tuple[str, str | None]]:
    """(name, role) of the results of the layer's function."""
    named = [ir.DictAttr(one) for one in parts.function.attributes["res_attrs"]]
    role = [str(ir.StringAttr(one["moe.role"]).value) if "moe.role" in one else None for one in named]
    return [(str(ir.StringAttr(one["moe.name"]).value), r) for one, r in zip(named, role, strict=True)]
