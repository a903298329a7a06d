"""Values of kernel code with operators: integers, floats, vectors of both, and byte-addressed pointers.

Operators emit `arith`, `vector` and `llvm` operations at the current insertion point.  A Python number beside a value
becomes a constant of that value's type.  Integers are signed; comparisons with NaN are false, except `!=`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import arith, llvm, vector

DYNAMIC = -(2**31)  # marks a dynamic index among the constant ones of a getelementptr


def byte_width(type_: ir.Type) -> int:
    """Bytes of one element of a scalar or vector type."""
    element = type_.element_type if isinstance(type_, ir.VectorType) else type_
    return 8 if isinstance(element, llvm.PointerType) else max(1, int(element.width) // 8)


def is_float(type_: ir.Type) -> bool:
    element = type_.element_type if isinstance(type_, ir.VectorType) else type_
    return isinstance(element, ir.FloatType)


def constant(type_: ir.Type, value: int | float | bool) -> Value:
    """A scalar constant, or a vector with that value in every lane."""
    element = type_.element_type if isinstance(type_, ir.VectorType) else type_
    attribute: ir.Attribute
    if isinstance(element, ir.FloatType):
        attribute = ir.FloatAttr.get(element, float(value))
    else:
        width = ir.IntegerType(element).width
        integer = int(value) & ((1 << width) - 1)
        if width > 1 and integer >= 1 << (width - 1):
            integer -= 1 << width
        attribute = ir.IntegerAttr.get(element, integer)
    if isinstance(type_, ir.VectorType):
        attribute = ir.DenseElementsAttr.get_splat(type_, attribute)
    return Value(_constant(type_, attribute))


def _constant(type_: ir.Type, attribute: ir.Attribute) -> Any:
    # Half of all operations are constants, and the class that is made for this one takes twice as long.
    return ir.Operation.create("arith.constant", results=[type_], attributes={"value": attribute}).results[0]


def lanes_constant(type_: ir.Type, values: Sequence[int | float | bool]) -> Value:
    """A vector constant with one given value a lane."""
    element = type_.element_type
    if isinstance(element, ir.FloatType):
        attributes = [ir.FloatAttr.get(element, float(v)) for v in values]
    else:
        attributes = [ir.IntegerAttr.get(element, int(v)) for v in values]
    return Value(arith.ConstantOp(type_, ir.DenseElementsAttr.get(attributes, type_)).result)


class Value:
    """An SSA value of integer, float or vector type."""

    __slots__ = ("raw",)

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    @property
    def type(self) -> ir.Type:
        return self.raw.type

    @property
    def element(self) -> ir.Type:
        """The type of a lane; of a scalar, its own."""
        type_ = self.raw.type
        return type_.element_type if isinstance(type_, ir.VectorType) else type_

    @property
    def lanes(self) -> int:
        """How many lanes; 1 for a scalar."""
        type_ = self.raw.type
        return int(type_.shape[0]) if isinstance(type_, ir.VectorType) else 1

    def same(self, other: Value | int | float) -> Value:
        """`other` as a value of this one's type: numbers become constants, scalars are broadcast to the lanes."""
        if not isinstance(other, Value):
            return constant(self.type, other)
        if isinstance(self.type, ir.VectorType) and not isinstance(other.type, ir.VectorType):
            return Value(vector.BroadcastOp(self.type, other.raw).result)
        return other

    def _binary(self, other: Value | int | float, floats: Callable[..., Any] | None, ints: Callable[..., Any]) -> Value:
        left, right = self, self.same(other)
        if isinstance(right.type, ir.VectorType) and not isinstance(left.type, ir.VectorType):
            left = right.same(left)
        if not is_float(left.type):
            return Value(ints(left.raw, right.raw).result)
        if floats is None:
            raise TypeError(f"operator not defined on {left.type}")
        return Value(floats(left.raw, right.raw).result)

    def __add__(self, other: Value | int | float) -> Value:
        return self._binary(other, arith.AddFOp, arith.AddIOp)

    def __sub__(self, other: Value | int | float) -> Value:
        return self._binary(other, arith.SubFOp, arith.SubIOp)

    def __mul__(self, other: Value | int | float) -> Value:
        return self._binary(other, arith.MulFOp, arith.MulIOp)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: int | float) -> Value:
        return self.same(other) - self

    def __truediv__(self, other: Value | int | float) -> Value:
        return self._binary(other, arith.DivFOp, arith.DivSIOp)

    def __rtruediv__(self, other: int | float) -> Value:
        return self.same(other) / self

    def __floordiv__(self, other: Value | int) -> Value:
        """Unsigned division: both sides must not be negative."""
        return self._binary(other, None, arith.DivUIOp)

    def __mod__(self, other: Value | int) -> Value:
        """Unsigned remainder: both sides must not be negative."""
        return self._binary(other, None, arith.RemUIOp)

    def __and__(self, other: Value | int) -> Value:
        return self._binary(other, None, arith.AndIOp)

    def __or__(self, other: Value | int) -> Value:
        return self._binary(other, None, arith.OrIOp)

    def __xor__(self, other: Value | int) -> Value:
        return self._binary(other, None, arith.XOrIOp)

    def __lshift__(self, other: Value | int) -> Value:
        return self._binary(other, None, arith.ShLIOp)

    def __rshift__(self, other: Value | int) -> Value:
        """Logical: zeros come in."""
        return self._binary(other, None, arith.ShRUIOp)

    def arithmetic_shift(self, other: Value | int) -> Value:
        """Right shift in which copies of the sign come in."""
        return self._binary(other, None, arith.ShRSIOp)

    def __neg__(self) -> Value:
        if is_float(self.type):
            return Value(arith.NegFOp(self.raw).result)
        return constant(self.type, 0) - self

    def __invert__(self) -> Value:
        return self ^ -1

    def _compare(self, other: Value | int | float, floats: str, ints: str) -> Value:
        return self._binary(
            other,
            lambda a, b: arith.CmpFOp(arith.CmpFPredicate[floats], a, b),
            lambda a, b: arith.CmpIOp(arith.CmpIPredicate[ints], a, b),
        )

    def __lt__(self, other: Value | int | float) -> Value:
        return self._compare(other, "OLT", "slt")

    def __le__(self, other: Value | int | float) -> Value:
        return self._compare(other, "OLE", "sle")

    def __gt__(self, other: Value | int | float) -> Value:
        return self._compare(other, "OGT", "sgt")

    def __ge__(self, other: Value | int | float) -> Value:
        return self._compare(other, "OGE", "sge")

    def equals(self, other: Value | int | float) -> Value:
        return self._compare(other, "OEQ", "eq")

    def differs(self, other: Value | int | float) -> Value:
        return self._compare(other, "UNE", "ne")

    def unsigned_below(self, other: Value | int) -> Value:
        return self._compare(other, "OLT", "ult")

    def is_nan(self) -> Value:
        return Value(arith.CmpFOp(arith.CmpFPredicate.UNO, self.raw, self.raw).result)

    def bitcast(self, type_: ir.Type) -> Value:
        """The same bits as another type of the same size."""
        if type_ == self.type:
            return self
        cast = vector.BitCastOp if isinstance(self.type, ir.VectorType) else arith.BitcastOp
        return Value(cast(type_, self.raw).result)

    def lane(self, index: int) -> Value:
        """One lane of a vector as a scalar."""
        return Value(vector.ExtractOp(self.raw, [], [index]).result)

    def __hash__(self) -> int:
        return hash(self.raw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and bool(self.raw == other.raw)


def unwrap(operand: Any) -> Any:
    return operand.raw if isinstance(operand, Value) else operand


class Pointer(Value):
    """An address.  Offsets count bytes; accesses assume no more alignment than that of one element, unless told."""

    __slots__ = ()

    def __add__(self, offset: Value | int | float) -> Pointer:
        if isinstance(offset, (int, float)) and offset == 0:
            return self
        byte = ir.IntegerType.get_signless(8)
        if isinstance(offset, (int, float)):
            if not -(2**31) < offset < 2**31:
                offset = constant(ir.IntegerType.get_signless(64), int(offset))
            else:
                return Pointer(llvm.GEPOp(self.type, self.raw, [], [int(offset)], byte, None).result)
        return Pointer(llvm.GEPOp(self.type, self.raw, [offset.raw], [DYNAMIC], byte, None).result)

    def at(self, index: Value | int, bytes_: int) -> Pointer:
        """The address of item `index` of an array of items of `bytes_` bytes."""
        return self + index * bytes_

    def load(self, type_: ir.Type, *, align: int | None = None) -> Value:
        return Value(llvm.LoadOp(type_, self.raw, alignment=align or byte_width(type_)).result)

    def load_pointer(self) -> Pointer:
        """The address that is stored here."""
        return Pointer(llvm.LoadOp(self.type, self.raw, alignment=8).result)

    def store(self, value: Value, *, align: int | None = None) -> None:
        llvm.StoreOp(value.raw, self.raw, alignment=align or byte_width(value.type))

    def store_streaming(self, value: Value) -> None:
        """Past the caches; the address must be aligned to the value's size.  `Builder.fence` orders what follows."""
        llvm.StoreOp(value.raw, self.raw, alignment=value.lanes * byte_width(value.type), nontemporal=True)

    def store_masked(self, value: Value, mask: Value) -> None:
        """Lanes whose mask bit is clear are not written."""
        llvm.MaskedStoreOp(value.raw, self.raw, mask.raw, byte_width(value.type))

    def prefetch(self) -> None:
        """Ask for the line at this address, to be read, in every cache level."""
        llvm.Prefetch(self.raw, 0, 3, 1)

    def fetch_add(self, value: Value | int) -> Value:
        """Atomic, without ordering of other accesses; returns the i64 that was there."""
        amount = value if isinstance(value, Value) else constant(ir.IntegerType.get_signless(64), value)
        relaxed = llvm.AtomicOrdering.monotonic
        return Value(llvm.AtomicRMWOp(llvm.AtomicBinOp.add, self.raw, amount.raw, relaxed).results[0])
