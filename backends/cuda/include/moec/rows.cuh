// What row programs use: a warp works on the small tensors of one token; lane l holds elements l, l + 32, ....
#pragma once
#include "moec/primitives.cuh"

namespace moec {

MOEC_DEVICE u32 warp_max(u32 value) {
#ifdef __CUDACC__
  return __reduce_max_sync(0xffffffffu, value);
#else
  for (int mask = 16; mask > 0; mask /= 2) {
    const u32 other = shuffle_xor(value, mask);
    value = value > other ? value : other;
  }
  return value;
#endif
}
MOEC_DEVICE u32 warp_min(u32 value) { return ~warp_max(~value); }

// Unsigned numbers that order as floats do: NaN above all, -0 equal to 0.  None is 0.
MOEC_DEVICE u32 key_of(float value) {
  const u32 bits = bits_of(value + 0.0f);
  if (value != value) return 0xffffffffu;
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
MOEC_DEVICE float value_of_key(u32 key) { return float_of(key >> 31 ? key & 0x7fffffffu : ~key); }

struct Largest {
  int place;
  u32 key;
};

// The largest key of those that the lanes hold, the first of equal ones; it becomes 0, which stands for no key.
template <int registers>
MOEC_DEVICE Largest take_largest(u32 (&keys)[registers]) {
  const int lane = lane_index();
  u32 best = 0;
  int at = lane;
  MOEC_UNROLL
  for (int r = 0; r < registers; ++r) {
    if (keys[r] > best) {
      best = keys[r];
      at = r * 32 + lane;
    }
  }
  const u32 top = warp_max(best);
  const int place = (int)warp_min(best == top ? (u32)at : 0xffffffffu);
  MOEC_UNROLL
  for (int r = 0; r < registers; ++r) {
    if (r * 32 + lane == place) keys[r] = 0;
  }
  return {place, top};
}

}  // namespace moec
