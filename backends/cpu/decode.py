"""Registers of codes to vectors of weights, and the multiplication of these by an element of a row.

| arithmetic | a field | becomes | by |
|---|---|---|---|
| PAIRS | 16 bits | bf16 | a look-up: `vpermw` takes the low five bits of a field and ignores what stands above |
| PAIRS, codes of 8 bits | 8 bits | bf16 | two look-ups of 128 bytes by `vpermi2b`, for the low and the high byte |
| BYTES, SHORTS | 8 bits | u8, the code plus `offset` | a mask |
| WORDS | 16 bits | i16 | two shifts; on AVX2 while loading |
| WIDENED | 32 bits | f32 | two shifts and a conversion |
| WIDENED on AVX2 | 32 bits | f32 | 8 bits while loading; 4 moved to the top by bytes; 2 by a shift and a mask |
| WIDENED, floats | 32 bits | f32 | look-ups, and shifts to join bytes; without them, as `e4m3` says; on AVX2 by f16 |

PAIRS keeps int8 as sign and magnitude, BYTES and SHORTS everything as unsigned numbers, the others as two's
complement.  Floats lie as they are, which is sign and magnitude.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from moec.backends.cpu import e4m3
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.codes import CodePanels, DecodedPanels
from moec.backends.cpu.layout import Arithmetic
from moec.backends.cpu.values import Pointer, Value, constant


def offset(layout: CodePanels) -> int:
    """What is added to codes in memory, and has to be taken off sums; a power of two."""
    return {8: 128, 4: 8, 2: 1}[layout.bits] if layout.arithmetic.offsets else 0


def multiple(layout: CodePanels) -> float:
    """What weights are decoded to, over what they are: a power of two."""
    if layout.arithmetic is not Arithmetic.WIDENED or layout.lanes != 8:
        return 1.0
    if layout.codes.floats:
        return 2.0**-8
    return {2: 2.0, 4: 2.0**28}.get(layout.bits, 1.0)


def magnitude_pairs(layout: CodePanels) -> bool:
    """Whether codes are signs and magnitudes, and a register holds the bytes of two vectors side by side."""
    return layout.arithmetic is Arithmetic.PAIRS and layout.bits == 8


class CodeBlock:
    """The weights of one block of dots; registers are loaded and decoded when they are first asked for."""

    def __init__(self, b: Builder, layout: CodePanels, at: Pointer) -> None:
        self.b, self.layout, self.at = b, layout, at
        self._registers: dict[int, Value] = {}
        self._pairs: dict[int, tuple[Value, Value]] = {}

    def vector(self, dot: int, number: int) -> Value:
        """A vector of the panel as `multiply_add` takes it."""
        layout = self.layout
        register, field = divmod(dot * layout.vectors + number, layout.vectors_per_register)
        if layout.bytes_together and layout.codes.floats:
            return self._float(register, field)
        if layout.bytes_together:
            wide = self.b.f32 if layout.arithmetic is Arithmetic.WIDENED else self.b.i16
            return self.b.convert(self._bytes(register, field, 1), wide)
        return self._decode(register, field)

    def _bytes(self, register: int, field: int, fields: int) -> Value:
        """The bytes of some neighbouring fields."""
        codes = self.layout.vector_codes
        place = self.at + (register * self.layout.register_bytes + codes * field)
        return place.load(self.b.vec(fields * codes, self.b.i8), align=fields * codes)

    def _float(self, register: int, field: int) -> Value:
        """Two fields are widened at once."""
        half = 2 * register + field // 2
        if half not in self._pairs:
            both = e4m3.through_f16(self.b, self._bytes(register, field // 2 * 2, 2))
            first, second = self.b.cut(both, 2)
            self._pairs[half] = first, second
        return self._pairs[half][field % 2]

    def _register(self, number: int) -> Value:
        if number not in self._registers:
            type_ = self.b.vec(self.layout.lanes, self.b.i32)
            whole = self.at + number * self.layout.register_bytes
            self._registers[number] = whole.load(type_, align=self.layout.register_bytes)
        return self._registers[number]

    def _decode(self, register: int, field: int) -> Value:
        b, layout, codes = self.b, self.layout, self._register(register)
        bits, begin = layout.bits, layout.bits * field
        if isinstance(layout, DecodedPanels):
            return (codes & -0x10000 if field else codes << 16).bitcast(b.vec(layout.lanes, b.f32))
        match layout.arithmetic:
            case Arithmetic.BYTES | Arithmetic.SHORTS:
                if bits == 8:
                    return codes
                mask = (1 << bits) - 1
                return (codes >> begin if begin else codes) & mask * 0x01010101
            case Arithmetic.WORDS:
                words = codes.bitcast(b.vec(2 * layout.lanes, b.i16))
                return _signed(words, 16 - bits - begin, 16 - bits)
            case Arithmetic.WIDENED if layout.codes.floats and b.variant.has_dot_bf16:
                if register not in self._pairs:
                    self._pairs[register] = _look_up_bytes(b, codes, e4m3.bf16_words())
                return _joined_bytes(b, *self._pairs[register], begin)
            case Arithmetic.WIDENED if layout.codes.floats:
                return e4m3.widened(b, codes, begin)
            case Arithmetic.WIDENED if bits == 2 and layout.lanes == 8:
                # 1, 0 and -1 in two bits are the first two of 2.0, 0.0 and -2.0.
                up = 32 - bits - begin
                return ((codes << up if up else codes) & -0x40000000).bitcast(b.like(codes, b.f32))
            case Arithmetic.WIDENED if bits == 4 and layout.lanes == 8:
                return b.convert(_nibble_at_top(b, codes, field), b.f32)
            case Arithmetic.WIDENED:
                return b.convert(_signed(codes, 32 - bits - begin, 32 - bits), b.f32)
            case _:
                if bits == 8:
                    if register not in self._pairs:
                        found = e4m3.bf16_words() if layout.codes.floats else [_bf16(n) for n in range(128)]
                        self._pairs[register] = _interleaved(b, *_look_up_bytes(b, codes, found))
                    return self._pairs[register][field]
                words = codes.bitcast(b.vec(32, b.i16))
                table = b.lanes_constant(words.type, _table(bits))
                name = "llvm.x86.avx512.permvar.hi.512"
                return b.intrinsic(name, words.type, table, words >> begin if begin else words)


def multiply_add(b: Builder, layout: CodePanels, element: Value, weights: Value, total: Value) -> Value:
    """total + element · weights: `element` holds 4 bytes of a row (i32 lanes), in all lanes.

    Of SHORTS, `total` has two lanes of i16 for each of i32.
    """
    lanes = layout.lanes
    match layout.arithmetic:
        case Arithmetic.WIDENED:
            return b.fma(element.bitcast(total.type), weights, total)
        case Arithmetic.PAIRS:
            return b.dot_bf16(element, weights, total)
        case Arithmetic.BYTES:
            bytes_ = b.vec(4 * lanes, b.i8)
            name = "llvm.x86.avx512.vpdpbusd.512"
            return b.intrinsic(name, total.type, total, weights.bitcast(bytes_), element.bitcast(bytes_))
        case Arithmetic.SHORTS:
            bytes_ = b.vec(4 * lanes, b.i8)
            name = "llvm.x86.avx2.pmadd.ub.sw"
            return total + b.intrinsic(name, total.type, weights.bitcast(bytes_), element.bitcast(bytes_))
        case _:
            return total + _dot_words(b, element.bitcast(b.vec(2 * lanes, b.i16)), weights, total)


def add_short(b: Builder, total: Value, short: Value) -> Value:
    """total (i32 lanes) plus the sums of pairs of i16."""
    return total + _dot_words(b, short, constant(short.type, 1), total)


def finish(b: Builder, layout: CodePanels, sums: list[Value], group: int, panel: Pointer, row: Pointer) -> list[Value]:
    """What the sums of a row's column group are, from what the microkernel leaves: scaled, in f32."""
    rows = layout.row
    if multiple(layout) != 1.0:
        sums = [value * (1 / multiple(layout)) for value in sums]
    if layout.arithmetic.integers and not layout.grouped:
        shift = offset(layout).bit_length() - 1
        if shift >= 0:
            negated = (row + rows.sum).load(b.i32) << shift
            sums = [value + negated for value in sums]
        sums = [b.convert(value, b.f32) for value in sums]
    if not layout.grouped:
        element = b.f32 if layout.scale == "f32" else b.bf16
        width = layout.scale_bytes // layout.vectors
        first = panel + (layout.column_scales + group * layout.operands * width)
        type_ = b.vec(layout.lanes, element)
        scales = [b.convert((first + n * width).load(type_), b.f32) for n in range(layout.operands)]
        sums = [value * scale for value, scale in zip(sums, scales, strict=True)]
    if layout.arithmetic.integers:
        scale = (row + rows.scale).load(b.f32)
        sums = [value * scale for value in sums]
    return sums


def _dot_words(b: Builder, x: Value, y: Value, like: Value) -> Value:
    name = {
        (True, 16): "llvm.x86.avx512.pmaddw.d.512",
        (True, 8): "llvm.x86.avx2.pmadd.wd",
        (True, 4): "llvm.x86.sse2.pmadd.wd",
    }.get((b.variant.is_x86, like.lanes))
    if name is not None:
        return b.intrinsic(name, like.type, x, y)
    low = [_signed(v.bitcast(like.type), 16, 16) for v in (x, y)]
    high = [v.bitcast(like.type).arithmetic_shift(16) for v in (x, y)]
    return low[0] * low[1] + high[0] * high[1]


def _signed(value: Value, up: int, down: int) -> Value:
    """Bits that end `up` below the highest one, with their sign."""
    return (value << up if up else value).arithmetic_shift(down)


def _nibble_at_top(b: Builder, codes: Value, number: int) -> Value:
    """Lanes (i32) with a half of a byte of theirs as the highest four bits, and zeros below them."""
    byte, upper = divmod(number, 2)
    if byte == 3 and upper:
        return codes & -0x10000000
    if byte == 0 and not upper:
        return codes << 28
    if byte == 3:
        return (codes << 4) & -0x10000000
    if byte == 0:
        top = codes << 24
    else:
        bytes_ = codes.bitcast(b.vec(4 * codes.lanes, b.i8))
        lanes = [bytes_.lanes if at % 4 < 3 else at - 3 + byte for at in range(bytes_.lanes)]
        top = b.shuffle(bytes_, constant(bytes_.type, 0), lanes).bitcast(codes.type)
    return top & -0x10000000 if upper else top << 4


def _bf16(number: int) -> int:
    """The bits of a small integer."""
    return int.from_bytes(struct.pack(">f", float(number))[:2], "big")


def _table(bits: int) -> list[int]:
    """bf16 of two's complement codes, over and over."""
    count = 1 << bits
    codes = [code - count if code >= count // 2 else code for code in range(count)]
    words = [_bf16(code) for code in codes]
    return [word - 65536 if word >= 32768 else word for word in words] * (32 // count)


def _look_up_bytes(b: Builder, codes: Value, words: Sequence[int]) -> tuple[Value, Value]:
    """The low and the high bytes of bf16 of 64 codes of sign and magnitude, from the words of magnitudes."""
    bytes_ = codes.bitcast(b.vec(64, b.i8))

    def look_up(half: list[int]) -> Value:
        signed = [byte - 256 if byte >= 128 else byte for byte in half]
        first, second = (b.lanes_constant(bytes_.type, signed[n : n + 64]) for n in (0, 64))
        return b.intrinsic("llvm.x86.avx512.vpermi2var.qi.512", bytes_.type, first, bytes_, second)

    low = look_up([word & 0xFF for word in words])
    return low, look_up([word >> 8 for word in words]) | (bytes_ & constant(bytes_.type, 0x80))


def _joined_bytes(b: Builder, low: Value, high: Value, begin: int) -> Value:
    """f32 lanes of the bf16 whose bytes stand in these at bit `begin` of every 32."""
    type_ = b.vec(low.lanes // 4, b.i32)
    low, high = low.bitcast(type_), high.bitcast(type_)
    upper = (high << (24 - begin) if begin < 24 else high) & -0x1000000
    lower = (low << (16 - begin) if begin <= 16 else low >> (begin - 16)) & 0xFF0000
    return (upper | lower).bitcast(b.like(upper, b.f32))


def _interleaved(b: Builder, low: Value, high: Value) -> tuple[Value, Value]:
    """64 bf16 from their bytes: the first eight of every sixteen, and the others."""
    sixteens = range(0, 64, 16)
    first = b.shuffle(low, high, [lane for s in sixteens for n in range(8) for lane in (s + n, 64 + s + n)])
    second = b.shuffle(low, high, [lane for s in sixteens for n in range(8, 16) for lane in (s + n, 64 + s + n)])
    return first, second
