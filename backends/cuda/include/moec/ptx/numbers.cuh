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

// Within 2^-16 of the result, relatively, where |x| < 88; a quotient is 0 where |y| > 2^126.
MOEC_DEVICE float approximate_exp(float x) { return __expf(x); }
MOEC_DEVICE float approximate_quotient(float x, float y) { return __fdividef(x, y); }

MOEC_DEVICE int population_count(u32 x) { return __popc(x); }
// The position of the lowest bit that is set; x is not 0.
MOEC_DEVICE int lowest_bit(u32 x) { return __ffs((int)x) - 1; }
MOEC_DEVICE int leading_zeros(u32 x) { return __clz((int)x); }

}  // namespace moec
