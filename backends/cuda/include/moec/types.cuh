// Types of both implementations.  No header of the system is needed, so that NVRTC compiles them too.
#pragma once

namespace moec {

using i8 = signed char;
using u8 = unsigned char;
using u16 = unsigned short;
using i32 = int;
using u32 = unsigned int;
using i64 = long long;
using u64 = unsigned long long;

// Floats in memory; `to_float` and `from_float` convert.
struct bf16 {
  u16 bits;
};
struct f16 {
  u16 bits;
};
// A sign, four bits of exponent, three of fraction: no infinities, and NaN where all of these seven are set.
struct e4m3 {
  u8 bits;
};

// Codes of a few bits, as numbers that are greater by `bias`; matmul/codes.cuh says how bytes hold them.
template <int bits_, int bias_>
struct Packed {
  static constexpr int bits = bits_, bias = bias_;
  u8 byte;
};

// A if `first`, else B.
template <bool first, class A, class B>
struct ChosenOf {
  using Type = A;
};
template <class A, class B>
struct ChosenOf<false, A, B> {
  using Type = B;
};
template <bool first, class A, class B>
using Chosen = typename ChosenOf<first, A, B>::Type;

// Sixteen bytes that are moved at once.
struct alignas(16) Quad {
  u32 word[4];
};

// Two floats that are moved at once.
struct alignas(8) Pair {
  float low, high;
};

// How TMA reads a tensor: a CUtensorMap, which the host encodes.  Kernels take it as MOEC_GRID_CONSTANT TensorMap.
struct alignas(128) TensorMap {
  u64 opaque[16];
};

// A barrier in shared memory that threads and copies arrive at.
struct alignas(8) Barrier {
  u64 opaque;
};

}  // namespace moec
