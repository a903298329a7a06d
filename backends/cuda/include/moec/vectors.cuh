// Several elements behind each other, 16 bytes at a time where they fill them.
#pragma once
#include "moec/scalar.cuh"

namespace moec {

// How many elements of each of two types are moved together, in lines of `columns` elements.
template <class A, class B, int columns>
struct Together {
  static constexpr int least = sizeof(A) < sizeof(B) ? (int)sizeof(A) : (int)sizeof(B);
  static constexpr int count = columns % (16 / least) == 0 ? 16 / least : 1;
};

template <class T>
MOEC_DEVICE void unpack(u32 word, float* out) {
  if constexpr (sizeof(T) == 4) {
    out[0] = float_of(word);
  } else {
    out[0] = to_float(T{(u16)word});
    out[1] = to_float(T{(u16)(word >> 16)});
  }
}

// `count` elements are a multiple of 16 bytes, at an address that is one, too; or one.
template <class T, int count>
MOEC_DEVICE void load_vector(const T* from, float (&out)[count]) {
  if constexpr (count == 1) {
    out[0] = load(from);
  } else {
    constexpr int each = 4 / sizeof(T);
    MOEC_UNROLL
    for (int q = 0; q < count / (4 * each); ++q) {
      const Quad quad = ((const Quad*)from)[q];
      MOEC_UNROLL
      for (int w = 0; w < 4; ++w) unpack<T>(quad.word[w], out + (q * 4 + w) * each);
    }
  }
}

template <class T, int count>
MOEC_DEVICE void store_vector(T* to, const float (&values)[count]) {
  if constexpr (count == 1) {
    store(to, values[0]);
  } else {
    constexpr int each = 4 / sizeof(T);
    MOEC_UNROLL
    for (int q = 0; q < count / (4 * each); ++q) {
      Quad quad;
      MOEC_UNROLL
      for (int w = 0; w < 4; ++w) {
        const int first = (q * 4 + w) * each;
        if constexpr (each == 1) quad.word[w] = bits_of(values[first]);
        else quad.word[w] = pack<T>(values[first], values[first + 1]);
      }
      ((Quad*)to)[q] = quad;
    }
  }
}

}  // namespace moec
