"""Elementwise operations at the insertion point, on scalars or on tensors of static shape alike.

Gradients are f32, whatever the type of the value that they belong to.
"""

from collections.abc import Sequence

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, tensor

EQUAL, GREATER, AT_LEAST, LESS, AT_MOST = 1, 2, 3, 4, 5
"""Ordered predicates of arith.cmpf."""


def shape_of(value: ir.Value) -> tuple[int, ...]:
    return tuple(ir.RankedTensorType(value.type).shape)


def is_tensor(value: ir.Value) -> bool:
    return isinstance(value.type, ir.RankedTensorType)


def gradient_type(value: ir.Value) -> ir.Type:
    """The type of the gradient of a value: its shape, in f32."""
    f32 = ir.F32Type.get()
    return ir.RankedTensorType.get(list(shape_of(value)), f32) if is_tensor(value) else f32


def number(value: float, type_: ir.Type) -> ir.Value:
    """A constant scalar, or a constant tensor of one number."""
    if isinstance(type_, ir.RankedTensorType):
        return arith.constant(type_, ir.DenseElementsAttr.get_splat(type_, ir.FloatAttr.get(type_.element_type, value)))
    return arith.constant(type_, ir.FloatAttr.get(type_, value))


def like(value: ir.Value, one: float) -> ir.Value:
    return number(one, value.type)


def zeros(shape: Sequence[int]) -> ir.Value:
    return number(0.0, ir.RankedTensorType.get(list(shape), ir.F32Type.get()))


def where_arriving(d: ir.Value, value: ir.Value) -> ir.Value:
    """`value`, and 0 where no gradient arrives: what is masked may be infinite, and 0 * inf must not come through."""
    none = like(d, 0.0)
    return arith.select(arith.cmpf(EQUAL, d, none), none, value)


def widened(value: ir.Value) -> ir.Value:
    """The value in f32."""
    want = gradient_type(value)
    return value if value.type == want else arith.extf(want, value)


def rounded(value: ir.Value, element: ir.Type) -> ir.Value:
    """An f32 value in another floating-point type."""
    type_ = ir.RankedTensorType.get(list(shape_of(value)), element) if is_tensor(value) else element
    return value if value.type == type_ else arith.truncf(type_, value)


def broadcast(value: ir.Value, shape: Sequence[int], added: Sequence[int]) -> ir.Value:
    """`value` with the axes `added`, which are axes of the result."""
    if not added:
        return value
    init = tensor.empty(list(shape), ir.RankedTensorType(value.type).element_type)
    made = linalg.BroadcastOp([init.type], value, init, list(added))
    linalg.fill_builtin_region(made.operation)
    return made.results[0]


def sum_axes(value: ir.Value, axes: Sequence[int]) -> ir.Value:
    """The sum along these axes, which go."""
    if not axes:
        return value
    init = zeros([n for i, n in enumerate(shape_of(value)) if i not in axes])
    made = linalg.ReduceOp([init.type], [value], [init], list(axes))
    f32 = ir.F32Type.get()
    with ir.InsertionPoint(made.regions[0].blocks.append(f32, f32)):
        linalg.YieldOp([arith.addf(*made.regions[0].blocks[0].arguments)])
    return made.results[0]


def expand(value: ir.Value, groups: Sequence[Sequence[int]], shape: Sequence[int]) -> ir.Value:
    type_ = ir.RankedTensorType.get(list(shape), ir.RankedTensorType(value.type).element_type)
    return tensor.expand_shape(type_, value, [list(g) for g in groups], [], list(shape))


def collapse(value: ir.Value, groups: Sequence[Sequence[int]], shape: Sequence[int]) -> ir.Value:
    type_ = ir.RankedTensorType.get(list(shape), ir.RankedTensorType(value.type).element_type)
    return tensor.collapse_shape(type_, value, [list(g) for g in groups])


def flat(value: ir.Value) -> ir.Value:
    """All elements on one axis."""
    shape = shape_of(value)
    if len(shape) == 1:
        return value
    if not shape:
        return expand(value, [], [1])
    size = 1
    for n in shape:
        size *= n
    return collapse(value, [list(range(len(shape)))], [size])


def unflat(value: ir.Value, shape: Sequence[int]) -> ir.Value:
    """One axis in another shape; the inverse of `flat`."""
    if len(shape) == 1:
        return value
    return expand(value, [list(range(len(shape)))], shape) if shape else collapse(value, [], [])


def row_sum(value: ir.Value) -> ir.Value:
    """tensor<N> to the tensor<1> of its sum."""
    return value if shape_of(value) == (1,) else expand(sum_axes(value, [0]), [], [1])


def stretched(value: ir.Value, width: int) -> ir.Value:
    """A tensor<1> repeated, tensor<width>."""
    if width == 1:
        return value
    return broadcast(collapse(value, [], []), [width], [0])


def add(first: ir.Value | None, second: ir.Value) -> ir.Value:
    return second if first is None else arith.addf(first, second)
