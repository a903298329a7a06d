// Conversions between floats, on a GPU: to the nearest, ties to even.
#pragma once

namespace moec {

MOEC_DEVICE u32 bits_of(float x) { return __float_as_uint(x); }
MOEC_DEVICE float float_of(u32 x) { return __uint_as_float(x); }

MOEC_DEVICE float to_float(float x) { return x; }
MOEC_DEVICE float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
MOEC_DEVICE float to_float(f16 x) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x.bits));
  return r;
}

template <class T>
MOEC_DEVICE T from_float(float x);
template <>
MOEC_DEVICE float from_float<float>(float x) {
  return x;
}
template <>
MOEC_DEVICE bf16 from_float<bf16>(float x) {
  bf16 r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r.bits) : "f"(x));
  return r;
}
template <>
MOEC_DEVICE f16 from_float<f16>(float x) {
  f16 r;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r.bits) : "f"(x));
  return r;
}

// Two floats as two elements of T in one word, `low` in the low half.
template <class T>
MOEC_DEVICE u32 pack(float low, float high);
template <>
MOEC_DEVICE u32 pack<bf16>(float low, float high) {
  u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
template <>
MOEC_DEVICE u32 pack<f16>(float low, float high) {
  u32 r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

// x & mask | bits, by one instruction: of two constants in C++ nvcc makes one for each.
MOEC_DEVICE u32 masked(u32 x, u32 mask, u32 bits) {
  u32 r;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(r) : "r"(x), "r"(mask), "r"(bits));
  return r;
}

// Four codes in a word as four elements of T, exactly: to[0] holds those of the lower bytes.
template <class T, class Code>
MOEC_DEVICE void decode(u32 codes, u32 (&to)[2]);
// With a code's lower seven bits as a fraction of 128 there is 128 more in it, and 256 where it is negative.
template <>
MOEC_DEVICE void decode<bf16, i8>(u32 codes, u32 (&to)[2]) {
  MOEC_UNROLL
  for (int i = 0; i < 2; i++) {
    const u32 bytes = __byte_perm(codes, 0, i ? 0x4342 : 0x4140);
    asm("fma.rn.bf16x2 %0, %1, %2, %3;"
        : "=r"(to[i])
        : "r"(masked(bytes, 0x007f007fu, 0x43004300u)), "r"(0x3f803f80u), "r"(masked(bytes, 0x00800080u, 0xc300c300u)));
  }
}
// A code and 128 as a fraction of 1024.
template <>
MOEC_DEVICE void decode<f16, i8>(u32 codes, u32 (&to)[2]) {
  MOEC_UNROLL
  for (int i = 0; i < 2; i++) {
    const u32 sum = __byte_perm(codes ^ 0x80808080u, 0x64646464u, i ? 0x4342 : 0x4140);
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(to[i]) : "r"(sum), "r"(0x64806480u));
  }
}

#if __CUDA_ARCH__ >= 890
// f16 holds every code, subnormal ones as ordinary numbers, and the device converts two at once.
MOEC_DEVICE u32 halves(u32 codes) {
  u32 r;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(r) : "h"((u16)codes));
  return r;
}
template <>
MOEC_DEVICE void decode<f16, e4m3>(u32 codes, u32 (&to)[2]) {
  MOEC_UNROLL
  for (int i = 0; i < 2; i++) to[i] = halves(codes >> 16 * i);
}
template <>
MOEC_DEVICE void decode<bf16, e4m3>(u32 codes, u32 (&to)[2]) {
  MOEC_UNROLL
  for (int i = 0; i < 2; i++) {
    const u32 two = halves(codes >> 16 * i);
    to[i] = pack<bf16>(to_float(f16{(u16)two}), to_float(f16{(u16)(two >> 16)}));
  }
}
#else
// Exponent and fraction at their places in T, whose exponents are counted from elsewhere: a product puts that right, and
// takes subnormals for what they are.  One bit more, carried out of all seven, makes T's exponent all ones: NaN.
template <>
MOEC_DEVICE void decode<bf16, e4m3>(u32 codes, u32 (&to)[2]) {
  MOEC_UNROLL
  for (int i = 0; i < 2; i++) {
    const u32 upper = __byte_perm(codes, 0, i ? 0x3424 : 0x1404), number = (upper & 0x7f007f00u) >> 4;
    const u32 nan = ((number + 0x00100010u) & 0x08000800u) * 0xf;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;"
        : "=r"(to[i])
        : "r"((upper & 0x80008000u) | number | nan), "r"(0x7b807b80u), "r"(0x80008000u));
  }
}
template <>
MOEC_DEVICE void decode<f16, e4m3>(u32 codes, u32 (&to)[2]) {
  MOEC_UNROLL
  for (int i = 0; i < 2; i++) {
    const u32 upper = __byte_perm(codes, 0, i ? 0x3424 : 0x1404), number = (upper & 0x7f007f00u) >> 1;
    const u32 nan = (number + 0x00800080u) & 0x40004000u;
    asm("mul.rn.f16x2 %0, %1, %2;"
        : "=r"(to[i])
        : "r"((upper & 0x80008000u) | number | nan), "r"(0x5c005c00u));
  }
}
#endif

// Two numbers below 128, what `mask` leaves of the halves of a word, less `bias`, as two elements of T, exactly.
template <class T>
MOEC_DEVICE u32 small_numbers(u32 word, u32 mask, u32 bias);
// As fractions of 128 there is 128 more in them.
template <>
MOEC_DEVICE u32 small_numbers<bf16>(u32 word, u32 mask, u32 bias) {
  u32 r;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;"
      : "=r"(r)
      : "r"(masked(word, mask, 0x43004300u)), "r"(0x3f803f80u), "r"(0xc300c300u + bias * 0x10001u));
  return r;
}
// As fractions of 1024.
template <>
MOEC_DEVICE u32 small_numbers<f16>(u32 word, u32 mask, u32 bias) {
  u32 r;
  asm("sub.rn.f16x2 %0, %1, %2;"
      : "=r"(r)
      : "r"(masked(word, mask, 0x64006400u)), "r"(0x64006400u + bias * 0x10001u));
  return r;
}

// Within 2^-16 of the result, relatively, where |x| < 88; a quotient is 0 where |y| > 2^126.
MOEC_DEVICE float approximate_exp(float x) { return __expf(x); }
MOEC_DEVICE float approximate_quotient(float x, float y) { return __fdividef(x, y); }

// Byte i of the result: that of `low` (0..3) and `high` (4..7) which hexadecimal digit i of `order` names.
MOEC_DEVICE u32 permute_bytes(u32 low, u32 high, u32 order) { return __byte_perm(low, high, order); }

MOEC_DEVICE int population_count(u32 x) { return __popc(x); }
// The position of the lowest bit that is set; x is not 0.
MOEC_DEVICE int lowest_bit(u32 x) { return __ffs((int)x) - 1; }
MOEC_DEVICE int leading_zeros(u32 x) { return __clz((int)x); }

}  // namespace moec
