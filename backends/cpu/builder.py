"""Writes kernels as MLIR: functions, control flow and the vector operations that `values` has no operator for.

    with b.define(function) as (a, n):
        with b.for_(0, n, 16, carry=[b.splat(v16, 0.0)]) as loop:
            loop.carry(loop.value + a.at(loop.index, 4).load(v16))
        b.return_(b.sum(loop.result))

Everything is emitted at the current insertion point.  Counts, sizes and loop indices are i64.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import arith, llvm, scf, vector

from moec.backends.cpu import halves
from moec.backends.cpu.isa import Variant
from moec.backends.cpu.later import Later, Source
from moec.backends.cpu.values import Pointer, Value, byte_width, constant, is_float, lanes_constant, unwrap


@dataclass(frozen=True)
class Function:
    """A function of the module, defined or not."""

    name: str
    arguments: tuple[ir.Type, ...]
    result: ir.Type | None
    operation: Any


class Loop:
    """A counted loop being written; `index` is its variable, `values` what the iteration starts with."""

    def __init__(self, operation: Any) -> None:
        self._operation = operation
        self.index = Value(operation.induction_variable)
        self.values = [wrap(argument) for argument in operation.inner_iter_args]
        self.next = list(self.values)

    @property
    def value(self) -> Value:
        """The only carried value."""
        (value,) = self.values
        return value

    def carry(self, *values: Value) -> None:
        """What the next iteration starts with."""
        self.next = list(values)

    @property
    def results(self) -> list[Value]:
        """The carried values after the loop."""
        return [wrap(result) for result in self._operation.results]

    @property
    def result(self) -> Value:
        (result,) = self.results
        return result


def wrap(raw: Any) -> Value:
    return Pointer(raw) if isinstance(raw.type, llvm.PointerType) else Value(raw)


class Builder:
    """Emits into one module for one variant at a time; `variant` decides what `fma` and a function's target are."""

    def __init__(self, module: ir.Module, variant: Variant) -> None:
        self.module = module
        self.variant = variant
        self.f32: ir.Type = ir.F32Type.get()
        self.f64: ir.Type = ir.F64Type.get()
        self.bf16: ir.Type = ir.BF16Type.get()
        self.f16: ir.Type = ir.F16Type.get()
        self.i1, self.i8, self.i16, self.i32, self.i64 = (
            ir.IntegerType.get_signless(width) for width in (1, 8, 16, 32, 64)
        )
        self.ptr: ir.Type = ir.Type.parse("!llvm.ptr")
        self._entry: ir.Block | None = None
        self._symbols: dict[str, Function] = {}
        self._constants: dict[bytes, str] = {}
        self._later: dict[str, Later] = {}
        self._alone = False

    def for_variant(self, variant: Variant) -> Builder:
        """A builder of the same module for another variant."""
        other = Builder(self.module, variant)
        other._symbols, other._constants, other._later = self._symbols, self._constants, self._later
        return other

    @cached_property
    def _lonely(self) -> Builder:
        """A builder for bodies that mention no symbols."""
        other = Builder(self.module, self.variant)
        other._alone = True
        return other

    # --- types and constants

    def vec(self, lanes: int, element: ir.Type) -> ir.Type:
        return ir.VectorType.get([lanes], element)

    def constant(self, type_: ir.Type, value: int | float | bool) -> Value:
        return constant(type_, value)

    def index(self, value: int | Value) -> Value:
        """An i64."""
        return value if isinstance(value, Value) else constant(self.i64, value)

    def lanes_constant(self, type_: ir.Type, values: Sequence[int | float | bool]) -> Value:
        return lanes_constant(type_, values)

    def splat(self, type_: ir.Type, value: Value | int | float) -> Value:
        """A vector with `value` (a number or a scalar) in every lane; a scalar type gives the scalar."""
        if not isinstance(value, Value):
            return constant(type_, value)
        return value if value.type == type_ else Value(vector.BroadcastOp(type_, value.raw).result)

    @property
    def null(self) -> Pointer:
        return Pointer(llvm.ZeroOp(self.ptr).result)

    def integer(self, address: Pointer) -> Value:
        """An address as an i64."""
        return Value(llvm.PtrToIntOp(self.i64, address.raw).result)

    def at_address(self, integer: Value) -> Pointer:
        """The inverse of `integer`."""
        return Pointer(llvm.IntToPtrOp(self.ptr, integer.raw).result)

    def is_null(self, address: Pointer) -> Value:
        return Value(llvm.ICmpOp(0, address.raw, self.null.raw).result)

    # --- functions and symbols

    def declare(
        self,
        name: str,
        arguments: Sequence[ir.Type],
        result: ir.Type | None = None,
        *,
        linkage: str = "internal",
        inline: bool = False,
    ) -> Function:
        """A function for this builder's variant.  `linkage`: internal, external, extern_weak.

        The symbol of an internal function is its name and the variant's, so that every variant has its own; declaring
        one again gives the same.  It is inlined when `inline` says so, otherwise never.
        """
        if self._alone:
            raise ValueError(f"{name}: a function that is written later mentions no symbols")
        if linkage == "internal":
            name = f"{name}.{self.variant.name}"
        if name in self._symbols:
            return self._symbols[name]
        returned = "void" if result is None else str(result)
        signature = ir.Type.parse(f"!llvm.func<{returned} ({', '.join(map(str, arguments))})>")
        target = {}
        if self.variant.target_cpu and linkage != "extern_weak":
            listed = ", ".join(f'"{feature}"' for feature in self.variant.target_features)
            target = {
                "target_cpu": self.variant.target_cpu,
                "target_features": ir.Attribute.parse(f"#llvm.target_features<[{listed}]>"),
            }
        with ir.InsertionPoint(self.module.body):
            operation = llvm.LLVMFuncOp(
                name,
                ir.TypeAttr.get(signature),
                linkage=ir.Attribute.parse(f"#llvm.linkage<{linkage}>"),
                no_unwind=True,
                no_inline=not inline,
                always_inline=inline,
                **target,
            )
        function = Function(name, tuple(arguments), result, operation)
        self._symbols[name] = function
        return function

    def later(self, name: str, arguments: Sequence[ir.Type], source: Source) -> Function:
        """An internal function whose body `source` writes where its machine code is not known.

        Raises ValueError where another source has given a function of this name.
        """
        function = self.declare(name, arguments)
        found = self._later.setdefault(function.name, Later(function, source, self._lonely))
        if found.source != source:
            raise ValueError(f"{function.name} is written from two sources: {found.source!r} and {source!r}")
        return function

    @property
    def written_later(self) -> Mapping[str, Later]:
        """By their names, in the order in which they were declared."""
        return self._later

    def known(self, name: str) -> Function | None:
        """The internal function of this name and variant, if it is declared."""
        return self._symbols.get(f"{name}.{self.variant.name}")

    @contextmanager
    def define(self, function: Function) -> Iterator[list[Any]]:
        """The body of a declared function; gives its arguments.  A void function returns at its end by itself."""
        outer = self._entry
        self._entry = function.operation.body.blocks.append(*function.arguments)
        with ir.InsertionPoint(self._entry):
            yield [wrap(argument) for argument in self._entry.arguments]
            if function.result is None:
                llvm.ReturnOp()
        self._entry = outer

    def return_(self, value: Value) -> None:
        llvm.ReturnOp(arg=value.raw)

    def call(self, function: Function, *arguments: Value) -> Value | None:
        callee = ir.FlatSymbolRefAttr.get(function.name)
        raw = [argument.raw for argument in arguments]
        called = llvm.CallOp(function.result, raw, [], [], callee=callee).operation
        return wrap(called.results[0]) if function.result is not None else None

    def result(self, function: Function, *arguments: Value) -> Value:
        """Calls a function that has a result."""
        returned = self.call(function, *arguments)
        if returned is None:
            raise TypeError(f"{function.name} returns nothing")
        return returned

    def address(self, function: Function) -> Pointer:
        """The address of a function; null for an undefined one of linkage extern_weak."""
        return Pointer(llvm.AddressOfOp(self.ptr, function.name).result)

    def string(self, text: str) -> Pointer:
        """The address of a constant C string.  Its symbol says which it is, so that what mentions it does not depend on
        other constants."""
        content = text.encode() + b"\0"
        return self._constant(f"text_{hashlib.sha256(content).hexdigest()[:16]}", content, align=1)

    def data(self, content: bytes, align: int = 64) -> Pointer:
        """The address of constant bytes.  Their symbol is a number, so that what mentions them does not depend on what
        they are."""
        return self._constant(self._constants.setdefault(content, f"constant_{len(self._constants)}"), content, align)

    def _constant(self, name: str, content: bytes, align: int) -> Pointer:
        if self._alone:
            raise ValueError("a function that is written later mentions no symbols")
        if name not in self._symbols:
            array = ir.Type.parse(f"!llvm.array<{len(content)} x i8>")
            with ir.InsertionPoint(self.module.body):
                linkage = ir.Attribute.parse("#llvm.linkage<internal>")
                value = ir.StringAttr.get(content)
                operation = llvm.GlobalOp(
                    array, name, linkage, constant=True, value=value, alignment=align, addr_space=0
                )
            self._symbols[name] = Function(name, (), None, operation)
        return Pointer(llvm.AddressOfOp(self.ptr, name).result)

    def integers(self, numbers: Sequence[int]) -> Pointer:
        """The address of constant i64."""
        return self.data(b"".join(number.to_bytes(8, sys.byteorder, signed=True) for number in numbers), align=8)

    def scratch(self, bytes_: int, align: int = 64) -> Pointer:
        """Memory on the stack of the current function, for as long as it runs."""
        if self._entry is None:
            raise ValueError("scratch memory belongs to a function that is being defined")
        with ir.InsertionPoint.at_block_begin(self._entry):
            count = constant(self.i64, bytes_)
            return Pointer(llvm.AllocaOp(self.ptr, count.raw, self.i8, alignment=align).result)

    # --- control flow

    @contextmanager
    def for_(
        self,
        start: Value | int,
        stop: Value | int,
        step: Value | int = 1,
        *,
        carry: Sequence[Value] = (),
        unroll: bool = False,
    ) -> Iterator[Loop]:
        """for (index = start; index < stop; index += step).

        LLVM leaves the loop as it is written, unless `unroll` lets it unroll and vectorise: that makes small loops of
        constant length faster, and compiling slower (of all loops of a layer: 2.5 times).
        """
        bounds = [self.index(bound).raw for bound in (start, stop, step)]
        operation = scf.ForOp(*bounds, [value.raw for value in carry])
        if not unroll:
            operation.operation.attributes["llvm.loop_annotation"] = ir.Attribute.parse(
                "#llvm.loop_annotation<vectorize = <disable = true>, unroll = <disable = true>>"
            )
        loop = Loop(operation)
        with ir.InsertionPoint(operation.body):
            yield loop
            scf.YieldOp([value.raw for value in loop.next])

    @contextmanager
    def if_(self, condition: Value) -> Iterator[None]:
        operation = scf.IfOp(condition.raw)
        with ir.InsertionPoint(operation.then_block):
            yield
            scf.YieldOp([])

    def choose(
        self,
        condition: Value,
        types: Sequence[ir.Type],
        then: Callable[[], Sequence[Value]],
        otherwise: Callable[[], Sequence[Value]],
    ) -> list[Value]:
        """Runs one of the two and returns its values, which have these types."""
        operation = scf.IfOp(condition.raw, list(types), has_else=True)
        for block, write in ((operation.then_block, then), (operation.else_block, otherwise)):
            with ir.InsertionPoint(block):
                scf.YieldOp([value.raw for value in write()])
        return [wrap(result) for result in operation.results]

    def while_(
        self,
        start: Sequence[Value],
        condition: Callable[..., Value],
        body: Callable[..., Sequence[Value]],
    ) -> list[Value]:
        """while (condition(*values)) values = body(*values); returns the last values."""
        types = [value.type for value in start]
        operation = scf.WhileOp(types, [value.raw for value in start])
        before = operation.before.blocks.append(*types)
        with ir.InsertionPoint(before):
            scf.ConditionOp(condition(*map(wrap, before.arguments)).raw, list(before.arguments))
        after = operation.after.blocks.append(*types)
        with ir.InsertionPoint(after):
            scf.YieldOp([value.raw for value in body(*map(wrap, after.arguments))])
        return [wrap(result) for result in operation.results]

    @contextmanager
    def claim(self, counter: Pointer, count: Value | int) -> Iterator[Value]:
        """The body once for every item 0 <= i < count that this thread is the first to claim from an atomic counter."""
        operation = scf.WhileOp([self.i64], [])
        before = operation.before.blocks.append()
        with ir.InsertionPoint(before):
            item = counter.fetch_add(1)
            scf.ConditionOp((item < self.index(count)).raw, [item.raw])
        after = operation.after.blocks.append(self.i64)
        with ir.InsertionPoint(after):
            yield Value(after.arguments[0])
            scf.YieldOp([])

    # --- arithmetic without an operator

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once where the variant can, else twice (never a call of libm)."""
        if not self.variant.has_fma:
            return a * b + c
        return self.intrinsic("llvm.fma", a.type, a, a.same(b), a.same(c))

    def dot_bf16(self, a: Value, b: Value, c: Value) -> Value:
        """c + the dot products of pairs of bf16, which stand in the f32 or i32 lanes of a and b, by `vdpbf16ps`."""
        pairs = self.vec(2 * c.lanes, self.bf16)
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        return self.intrinsic(name, c.type, c, a.bitcast(pairs), b.bitcast(pairs))

    def intrinsic(self, name: str, result: ir.Type | None, *arguments: Value) -> Value:
        """An LLVM intrinsic by its base name; overloads are resolved from the types."""
        raw = [argument.raw for argument in arguments]
        operation = llvm.CallIntrinsicOp(result, name, raw, [], []).operation
        return wrap(operation.results[0]) if result is not None else Value(None)

    def select(self, condition: Value, then: Value, otherwise: Value | int | float) -> Value:
        return wrap(arith.SelectOp(condition.raw, then.raw, then.same(otherwise).raw).result)

    def minimum(self, a: Value, b: Value | int | float) -> Value:
        """The smaller; of floats, `b` if either is NaN."""
        b = a.same(b)
        return self.select(a < b, a, b) if is_float(a.type) else Value(arith.MinSIOp(a.raw, b.raw).result)

    def maximum(self, a: Value, b: Value | int | float) -> Value:
        """The larger; of floats, `b` if either is NaN."""
        b = a.same(b)
        return self.select(a > b, a, b) if is_float(a.type) else Value(arith.MaxSIOp(a.raw, b.raw).result)

    def convert(self, value: Value, element: ir.Type, *, signed: bool = True) -> Value:
        """To another element type.  Integers become floats by value; rounding is to nearest even, NaN stays."""
        if value.element == element:
            return value
        to = self.like(value, element)
        if is_float(value.type) and is_float(to):
            return self._convert_float(value, element, to)
        if is_float(value.type):
            return Value(arith.FPToSIOp(to, value.raw).result)
        if is_float(to):
            return Value((arith.SIToFPOp if signed else arith.UIToFPOp)(to, value.raw).result)
        if ir.IntegerType(value.element).width > ir.IntegerType(element).width:
            return Value(arith.TruncIOp(to, value.raw).result)
        return Value((arith.ExtSIOp if signed else arith.ExtUIOp)(to, value.raw).result)

    def like(self, value: Value, element: ir.Type) -> ir.Type:
        """The type of `value` with another element type."""
        return self.vec(value.lanes, element) if isinstance(value.type, ir.VectorType) else element

    def _convert_float(self, value: Value, element: ir.Type, to: ir.Type) -> Value:
        if element == self.bf16:
            return self._round_bf16(self.convert(value, self.f32), to)
        if value.element == self.bf16:
            return self.convert(self._widen(value, self.like(value, self.f32)), element)
        if not self.variant.has_halves and self.f16 in (element, value.element):  # LLVM calls a library for it
            if element == self.f16:
                return halves.rounded(self, self.convert(value, self.f32))
            return self.convert(halves.widened(self, value), element)
        wider = byte_width(element) > byte_width(value.element)
        return Value((arith.ExtFOp if wider else arith.TruncFOp)(to, value.raw).result)

    def _widen(self, value: Value, to: ir.Type) -> Value:
        bits = value.bitcast(self.like(value, self.i16))
        return (self.convert(bits, self.i32, signed=False) << 16).bitcast(to)

    def _round_bf16(self, value: Value, to: ir.Type) -> Value:
        # In integers, because LLVM calls a library for it where bf16 is not native, and native forms flush denormals.
        bits = value.bitcast(self.like(value, self.i32))
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        quiet = (bits >> 16) | 0x40
        return self.convert(self.select(value.is_nan(), quiet, rounded), self.i16).bitcast(to)

    # --- vectors

    def fence(self) -> None:
        """Nothing that follows is seen by another thread before the stores that came before."""
        llvm.FenceOp(llvm.AtomicOrdering.seq_cst)

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """Lanes of a and b (those of b count on from a's)."""
        if a.element in (self.bf16, self.f16):  # LLVM moves them by way of f32, and calls a library, where not native
            bits = self.like(a, self.i16)
            moved = self.shuffle(a.bitcast(bits), b.bitcast(bits), lanes)
            return moved.bitcast(self.like(moved, a.element))
        return Value(vector.ShuffleOp(a.raw, b.raw, list(lanes)).result)

    def concatenate(self, parts: Sequence[Value]) -> Value:
        """Vectors of equal type, a power of two of them, one behind the other."""
        joined = list(parts)
        while len(joined) > 1:
            pairs = zip(joined[::2], joined[1::2], strict=True)
            joined = [self.shuffle(low, high, range(2 * low.lanes)) for low, high in pairs]
        return joined[0]

    def cut(self, value: Value, count: int) -> list[Value]:
        """The parts of a vector, `count` of equal length; the inverse of `concatenate`."""
        lanes = value.lanes // count
        return [self.shuffle(value, value, range(n * lanes, (n + 1) * lanes)) for n in range(count)]

    def reduce(self, value: Value, combine: Callable[[Value, Value], Value]) -> Value:
        """Combines the lanes pairwise in a fixed tree: halves, quarters, ...; a power of two of them."""
        while value.lanes > 1:
            half = value.lanes // 2
            low = self.shuffle(value, value, range(half))
            high = self.shuffle(value, value, range(half, 2 * half))
            value = combine(low, high)
        return value.lane(0) if isinstance(value.type, ir.VectorType) else value

    def sum(self, value: Value) -> Value:
        return self.reduce(value, lambda a, b: a + b)

    def first_lanes(self, lanes: int, count: Value | int) -> Value:
        """A mask of the lanes below `count` (any i64; lanes it does not reach are clear)."""
        if isinstance(count, int):
            return lanes_constant(self.vec(lanes, self.i1), [lane < count for lane in range(lanes)])
        bounded = self.convert(self.minimum(self.maximum(count, 0), lanes), self.i32)
        steps = lanes_constant(self.vec(lanes, self.i32), range(lanes))
        return steps < self.splat(steps.type, bounded)

    def assembly(self, text: str, constraints: str, result: ir.Type | None, *arguments: Value) -> Value:
        """Inline assembly with side effects."""
        raw = [unwrap(argument) for argument in arguments]
        operation = llvm.InlineAsmOp(result, raw, text, constraints, has_side_effects=True).operation
        return wrap(operation.results[0]) if result is not None else Value(None)

    def here(self, values: Sequence[Value]) -> list[Value]:
        """The same vectors, of one type and at least two, in registers at this point of the code: LLVM moves what they
        are made of to no place behind it, and what they make to none in front."""
        type_, count = values[0].type, len(values)
        constraints = ",".join(["=v"] * count + [str(n) for n in range(count)])
        both = self.structure(*[type_] * count)
        same = self.assembly("", constraints, both, *values)
        return [self.field(type_, same, n) for n in range(count)]

    def structure(self, *fields: ir.Type) -> ir.Type:
        """A struct type, such as assembly with several outputs returns."""
        return ir.Type.parse(f"!llvm.struct<({', '.join(map(str, fields))})>")

    def field(self, type_: ir.Type, structure: Value, number: int) -> Value:
        """A field, of this type, of a struct."""
        return Value(llvm.ExtractValueOp(type_, structure.raw, ir.DenseI64ArrayAttr.get([number])).result)
