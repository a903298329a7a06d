"""Code for AVX-512 on a processor without it.

A variant is emulated by compiling it for AVX2: LLVM splits its vectors, and each of its own instructions is made of
others, by the definitions here.  So everything that a variant does otherwise, from the order of packed weights to
tiles, is run and compared; only which instructions LLVM selects is not, and what it costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from unittest.mock import patch

from torch_mlir import ir

from moec.artifact.host import host_features, missing_features
from moec.backends.cpu import isa
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.values import Pointer, Value

Define = Callable[..., Value]


@dataclass(frozen=True)
class Emulated(isa.Variant):
    """A variant that runs where AVX2 does."""

    @property
    def has_scale(self) -> bool:
        return True


def emulated(variant: isa.Variant) -> isa.Variant:
    """The same variant for a processor that has AVX2 only."""
    given = {field.name: getattr(variant, field.name) for field in fields(variant)}
    like = isa.AVX2
    return Emulated(
        **given | {"features": like.features, "target_cpu": like.target_cpu, "target_features": like.target_features}
    )


@contextmanager
def everywhere() -> Iterator[None]:
    """Variants that this processor lacks are compiled so that it runs them.  Without AVX2 all stay as they are."""
    have, every = host_features(), isa.host_variants

    def runnable(*, integer_rows: bool = False) -> tuple[isa.Variant, ...]:
        return tuple(
            emulated(variant) if variant.registers > isa.AVX2.registers and missing_features(variant, have) else variant
            for variant in every(integer_rows=integer_rows)
        )

    with ExitStack() as stack:
        if not missing_features(isa.AVX2, have):
            stack.enter_context(patch.object(isa, "host_variants", runnable))
            stack.enter_context(_instructions())
        yield


@contextmanager
def _instructions() -> Iterator[None]:
    """What a builder for an emulated variant emits in place of instructions of AVX-512."""
    intrinsic, assembly, here = Builder.intrinsic, Builder.assembly, Builder.here

    def defined(self: Builder, name: str, result: ir.Type | None, *arguments: Value) -> Value:
        if isinstance(self.variant, Emulated) and name in DEFINITIONS:
            return DEFINITIONS[name](self, *arguments)
        return intrinsic(self, name, result, *arguments)

    def streamed(self: Builder, text: str, constraints: str, result: ir.Type | None, *arguments: Value) -> Value:
        if isinstance(self.variant, Emulated) and text.startswith("vmovntps"):
            value, at = arguments
            assert isinstance(at, Pointer)
            for number, half in enumerate(self.cut(value, 2)):
                assembly(self, text, constraints, result, half, at + 32 * number)
            return Value(None)
        return assembly(self, text, constraints, result, *arguments)

    def anywhere(self: Builder, values: Sequence[Value]) -> list[Value]:
        return list(values) if isinstance(self.variant, Emulated) else here(self, values)

    with (
        patch.object(Builder, "intrinsic", defined),
        patch.object(Builder, "assembly", streamed),
        patch.object(Builder, "here", anywhere),
    ):
        yield


def _every(b: Builder, value: Value, first: int, step: int) -> Value:
    return b.shuffle(value, value, range(first, value.lanes, step))


def _dot_bf16(b: Builder, total: Value, x: Value, y: Value) -> Value:
    """`vdpbf16ps`: the odd elements of each pair first."""
    x, y = b.convert(x, b.f32), b.convert(y, b.f32)
    for place in (1, 0):
        total = b.fma(_every(b, x, place, 2), _every(b, y, place, 2), total)
    return total


def _dot_bytes(b: Builder, total: Value, x: Value, y: Value) -> Value:
    """`vpdpbusd`: i32 plus four products of an unsigned and a signed byte."""
    products = b.convert(x, b.i32, signed=False) * b.convert(y, b.i32)
    for place in range(4):
        total = total + _every(b, products, place, 4)
    return total


def _dot_words(b: Builder, x: Value, y: Value) -> Value:
    """`vpmaddwd`: two products of i16 in an i32."""
    products = b.convert(x, b.i32) * b.convert(y, b.i32)
    return _every(b, products, 0, 2) + _every(b, products, 1, 2)


def _two_rounded(b: Builder, high: Value, low: Value) -> Value:
    """`vcvtne2ps2bf16`: f32 to bf16, the second operand into the lower half."""
    return b.convert(b.concatenate([low, high]), b.bf16)


def _scaled(b: Builder, x: Value, exponent: Value, *_: Value) -> Value:
    """`vscalefps` of all lanes: x * 2^floor(exponent), rounded once; every exponent beyond 300 gives 0 or infinity."""
    bounded = b.minimum(b.maximum(exponent, -300.0), 300.0)
    whole = b.convert(b.intrinsic("llvm.floor", bounded.type, bounded), b.i64)
    power = ((whole + 1023) << 52).bitcast(b.like(whole, b.f64))
    product = b.convert(b.convert(x, b.f64) * power, b.f32)
    return b.select(exponent.is_nan(), exponent, product)


def _words_looked_up(b: Builder, table: Value, index: Value) -> Value:
    """`vpermw`: the word of a table of 32 at each index."""
    low = (index & 31) << 1
    places = (low | ((low | 1) << 8)).bitcast(b.vec(64, b.i8))
    return _looked_up(b, table.bitcast(places.type), places).bitcast(table.type)


def _bytes_looked_up(b: Builder, low: Value, index: Value, high: Value) -> Value:
    """`vpermi2b`: the byte of a table of 128 at each index."""
    return _looked_up(b, b.concatenate([low, high]), index)


def _looked_up(b: Builder, table: Value, index: Value) -> Value:
    """The byte of a table at each index; what is beyond its end counts from its beginning again."""
    parts = []
    for places in b.cut(index, 2):
        found = places.same(0)
        sixteen = (places >> 4) & (table.lanes // 16 - 1)
        for number in range(table.lanes // 16):
            part = b.shuffle(table, table, [*range(16 * number, 16 * number + 16)] * 2)
            there = b.intrinsic("llvm.x86.avx2.pshuf.b", places.type, part, places & 15)
            found = b.select(sixteen.equals(number), there, found)
        parts.append(found)
    return b.concatenate(parts)


DEFINITIONS: dict[str, Define] = {
    "llvm.x86.avx512bf16.dpbf16ps.512": _dot_bf16,
    "llvm.x86.avx512bf16.cvtne2ps2bf16.512": _two_rounded,
    "llvm.x86.avx512.vpdpbusd.512": _dot_bytes,
    "llvm.x86.avx512.pmaddw.d.512": _dot_words,
    "llvm.x86.avx512.permvar.hi.512": _words_looked_up,
    "llvm.x86.avx512.vpermi2var.qi.512": _bytes_looked_up,
    "llvm.x86.avx512.mask.scalef.ps.512": _scaled,
}
"""By the name of LLVM's intrinsic; operands in its order."""
