// Rows of f16 in products of bf16 on tensor cores, exactly.
#pragma once
#include "moec/primitives.cuh"

namespace moec {

// How many numbers of bf16 an element of T is the sum of.
template <class T>
inline constexpr int factors_of = 1;
template <>
inline constexpr int factors_of<f16> = 2;

// A number of f16 has 11 significant bits, and its exponents are among those of bf16, which has 8: `high` has the first
// of them, and what is left, 3 bits at most and not below 2^-32, is a number of bf16, too.  `high` is the next number of
// bf16 towards zero, never the number itself: so both have its sign and neither is 0, unless it is, and an infinite
// weight times each is infinite, not NaN.  Of an infinite number `high` is the largest and `low` is infinite.
MOEC_DEVICE u32 upper_factor(float value) {
  const u32 bits = bits_of(value);
  return bits << 1 ? (bits - 1) & 0xffff0000u : bits;
}

// a[0] has two elements of T in each word, and then their first factors; a[1] their second ones, if there are.
template <class T>
MOEC_DEVICE void cut_rows(u32 (&a)[factors_of<T>][4]) {
  if constexpr (factors_of<T> == 2) {
    MOEC_UNROLL
    for (int w = 0; w < 4; ++w) {
      const float first = to_float(f16{(u16)a[0][w]}), second = to_float(f16{(u16)(a[0][w] >> 16)});
      const u32 high[2] = {upper_factor(first), upper_factor(second)};
      a[0][w] = high[0] >> 16 | high[1];
      a[1][w] = pack<bf16>(first - float_of(high[0]), second - float_of(high[1]));
    }
  }
}

}  // namespace moec
