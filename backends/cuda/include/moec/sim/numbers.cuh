// Conversions between floats, on the simulator.
#pragma once
#include <bit>
#include <cmath>

namespace moec {

inline u32 bits_of(float x) { return std::bit_cast<u32>(x); }
inline float float_of(u32 x) { return std::bit_cast<float>(x); }

inline float to_float(float x) { return x; }
inline float to_float(bf16 x) { return float_of((u32)x.bits << 16); }
inline float to_float(f16 x) { return (float)std::bit_cast<_Float16>(x.bits); }

template <class T>
T from_float(float x);
template <>
inline float from_float<float>(float x) {
  return x;
}
template <>
inline bf16 from_float<bf16>(float x) {
  const u32 bits = bits_of(x);
  if (x != x) return {0x7fff};
  return {(u16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
template <>
inline f16 from_float<f16>(float x) {
  return {std::bit_cast<u16>((_Float16)x)};
}

template <class T>
u32 pack(float low, float high) {
  return from_float<T>(low).bits | (u32)from_float<T>(high).bits << 16;
}

inline float value_of_code(i8, u8 code) { return (float)(i8)code; }
inline float value_of_code(e4m3, u8 code) {
  const int exponent = code >> 3 & 15, fraction = code & 7;
  const float size = (code & 127) == 127 ? NAN
                     : exponent         ? ldexpf((float)(8 + fraction), exponent - 10)
                                        : ldexpf((float)fraction, -9);
  return copysignf(size, code & 128 ? -1.0f : 1.0f);
}

template <class T, class Code>
void decode(u32 codes, u32 (&to)[2]) {
  for (int i = 0; i < 2; i++)
    to[i] = pack<T>(value_of_code(Code{}, (u8)(codes >> 16 * i)), value_of_code(Code{}, (u8)(codes >> (16 * i + 8))));
}

template <class T>
u32 small_numbers(u32 word, u32 mask, u32 bias) {
  const u32 numbers = word & mask;
  return pack<T>((float)((int)(numbers & 0xffff) - (int)bias), (float)((int)(numbers >> 16) - (int)bias));
}

inline float approximate_exp(float x) { return expf(x); }
inline float approximate_quotient(float x, float y) { return fabsf(y) > 0x1p126f ? x * 0.0f : x / y; }

inline u32 permute_bytes(u32 low, u32 high, u32 order) {
  const u64 bytes = (u64)high << 32 | low;
  u32 made = 0;
  for (int i = 0; i < 4; i++) made |= (u32)(bytes >> (order >> 4 * i & 7) * 8 & 0xff) << 8 * i;
  return made;
}

inline int population_count(u32 x) { return std::popcount(x); }
inline int lowest_bit(u32 x) { return std::countr_zero(x); }
inline int leading_zeros(u32 x) { return std::countl_zero(x); }

}  // namespace moec
