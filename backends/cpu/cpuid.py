"""Asks the processor what it can do, with the `cpuid` and `xgetbv` instructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.isa import Variant
from moec.backends.cpu.values import Value


@dataclass(frozen=True)
class Bit:
    """A feature: bit `bit` of register `register` (eax, ebx, ecx, edx) that cpuid gives for a leaf and sub-leaf."""

    leaf: int
    subleaf: int
    register: str
    bit: int


BITS = {
    "sse4_2": Bit(1, 0, "ecx", 20),
    "cx16": Bit(1, 0, "ecx", 13),
    "movbe": Bit(1, 0, "ecx", 22),
    "popcnt": Bit(1, 0, "ecx", 23),
    "osxsave": Bit(1, 0, "ecx", 27),
    "avx": Bit(1, 0, "ecx", 28),
    "f16c": Bit(1, 0, "ecx", 29),
    "fma": Bit(1, 0, "ecx", 12),
    "bmi1": Bit(7, 0, "ebx", 3),
    "avx2": Bit(7, 0, "ebx", 5),
    "bmi2": Bit(7, 0, "ebx", 8),
    "avx512f": Bit(7, 0, "ebx", 16),
    "avx512dq": Bit(7, 0, "ebx", 17),
    "avx512cd": Bit(7, 0, "ebx", 28),
    "avx512bw": Bit(7, 0, "ebx", 30),
    "avx512vl": Bit(7, 0, "ebx", 31),
    "avx512vbmi": Bit(7, 0, "ecx", 1),
    "avx512_vnni": Bit(7, 0, "ecx", 11),
    "avx512_bf16": Bit(7, 1, "eax", 5),
    "lzcnt": Bit(0x80000001, 0, "ecx", 5),
}

# What the operating system must save for the registers to be usable (bits of XCR0).
_XCR0_AVX = 0x06  # xmm, ymm
_XCR0_AVX512 = 0xE6  # and the mask registers, the upper halves, zmm16-31

_REGISTERS = ("eax", "ebx", "ecx", "edx")


def supports_function(b: Builder, variants: Sequence[Variant]) -> Function:
    """Emits `i64 supports()`: bit i is set if this processor and its operating system can run `variants[i]`."""
    function = b.declare("supports", [], b.i64)
    with b.define(function):
        mask = b.index(0)
        leaves = _leaves(b, variants)
        for number, variant in enumerate(variants):
            able = b.constant(b.i1, 1)
            for feature in _needed(variant):
                bit = BITS[feature]
                word = leaves[bit.leaf, bit.subleaf][_REGISTERS.index(bit.register)]
                able = able & ((word >> bit.bit) & 1).equals(1)
            if "avx" in variant.features:
                able = able & _saved(b, able, _XCR0_AVX512 if "avx512f" in variant.features else _XCR0_AVX)
            mask = mask | (b.convert(able, b.i64, signed=False) << number)
        b.return_(mask)
    return function


def _needed(variant: Variant) -> tuple[str, ...]:
    return ("osxsave", *variant.features) if "avx" in variant.features else variant.features


def _leaves(b: Builder, variants: Sequence[Variant]) -> dict[tuple[int, int], list[Value]]:
    """The registers of every leaf that is needed; zeros for one that the processor does not have."""
    wanted = {(BITS[name].leaf, BITS[name].subleaf) for variant in variants for name in _needed(variant)}
    found = {}
    for leaf, subleaf in sorted(wanted):
        highest = _cpuid(b, leaf & 0x80000000, 0)[0]
        present = b.constant(b.i32, leaf - 1).unsigned_below(highest)
        words = _cpuid(b, leaf, subleaf)
        found[leaf, subleaf] = [b.select(present, word, 0) for word in words]
    return found


def _cpuid(b: Builder, leaf: int, subleaf: int) -> list[Value]:
    # rbx may be the base register of position-independent code: it is kept aside.
    text = "xchgq %rbx, ${1:q}\ncpuid\nxchgq %rbx, ${1:q}"
    outputs = b.structure(b.i32, b.i32, b.i32, b.i32)
    constraints = "={ax},=&r,={cx},={dx},0,2,~{dirflag},~{fpsr},~{flags}"
    words = b.assembly(text, constraints, outputs, b.constant(b.i32, leaf), b.constant(b.i32, subleaf))
    return [b.field(b.i32, words, n) for n in range(4)]


def _saved(b: Builder, able: Value, needed: int) -> Value:
    """Whether the operating system saves what XCR0 says; asked only if `able`, for `xgetbv` may not exist."""

    def ask() -> list[Value]:
        outputs = b.structure(b.i32, b.i32)
        words = b.assembly("xgetbv", "={ax},={dx},{cx},~{dirflag},~{fpsr},~{flags}", outputs, b.constant(b.i32, 0))
        return [(b.field(b.i32, words, 0) & needed).equals(needed)]

    return b.choose(able, [b.i1], ask, lambda: [b.constant(b.i1, 0)])[0]
