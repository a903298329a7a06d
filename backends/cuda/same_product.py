"""The same product of experts that are stored in different ways: linears with a dtype of their own stay floats in all.

Their weights are experts of one parameter, which the device then has as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch_mlir import ir

from moec.backends.cpu.parameters import is_parameter
from moec.backends.cuda.shares import shares
from moec.dialect.parts import PART, part_of


def as_one(products: Sequence[ir.Operation]) -> ir.Value | None:
    """The rows of one product in place of several of one plan, each with a `part` of its experts.

    None where they are not the same, of different experts of the same parameters.
    """
    whole = _whole_parameters(products)
    if whole is None:
        return None
    first, *others = products
    for op in (first, *(inner.operation for inner in first.regions[0].blocks[0].operations)):
        for number, operand in enumerate(op.operands):
            if operand in whole:
                op.operands[number] = whole[operand]
    del first.attributes[PART]
    for other in others:
        other.results[0].replace_all_uses_with(first.results[0])
        other.erase()
    return first.results[0]


def _whole_parameters(products: Sequence[ir.Operation]) -> dict[ir.Value, ir.Value] | None:
    """The parameters of which the first product reads some experts, by what it reads; None where products differ."""
    parts = [part_of(product) or () for product in products]
    count = sum(map(len, parts))
    whole: dict[ir.Value, ir.Value] = {}
    inner: dict[ir.Value, tuple[int, int]] = {}

    def same(values: Sequence[ir.Value]) -> bool:
        """Whether values at the same place of all products are the same, or each its part of one parameter."""
        if any(value in inner for value in values):
            return len({inner.get(value) for value in values}) == 1
        if all(value == values[0] for value in values):
            return True
        if not all(map(is_parameter, values)):
            return False
        found = [shares(value) for value in values]
        parameter = found[0][0].parameter
        mine = [len(of) == 1 and of[0].parameter == parameter and of[0].experts for of in found]
        if mine != parts or ir.RankedTensorType(parameter.type).get_dim_size(0) != count:
            return False
        whole[values[0]] = parameter
        return True

    blocks = [[op.operation for op in product.regions[0].blocks[0].operations] for product in products]
    for product in products:
        inner |= {value: (-1, n) for n, value in enumerate(product.regions[0].blocks[0].arguments)}
    if len({len(block) for block in blocks}) > 1:
        return None
    for place, ops in enumerate([tuple(products), *zip(*blocks, strict=True)]):
        looks = {(op.name, len(op.operands), tuple(str(r.type) for r in op.results), _attributes(op)) for op in ops}
        if len(looks) > 1 or not all(map(same, zip(*(op.operands for op in ops), strict=True))):
            return None
        for op in ops[: len(ops) if place else 0]:
            inner |= {value: (place, n) for n, value in enumerate(op.results)}
    return whole


def _attributes(op: ir.Operation) -> tuple[str, ...]:
    return tuple(sorted(f"{name} = {op.attributes[name]}" for name in op.attributes if name != PART))
