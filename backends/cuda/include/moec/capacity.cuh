// Which slots of an expert fit into its capacity, by their weights.
#pragma once
#include "moec/rows.cuh"

namespace moec {

// max(minimum, ceil(share * slots / experts)), worked out in f64.
MOEC_DEVICE int capacity_limit(double factor, int experts, int minimum, int slots) {
  const double share = (double)slots * factor / (double)experts;
  const double most = 2147483647.0;
  const i64 whole = (i64)(share < most ? share : most);
  const i64 limit = whole + ((double)whole < share);
  return (int)(limit > minimum ? limit < 2147483647 ? limit : 2147483647 : minimum);
}

// A block keeps the `limit` slots of largest weight among slots[0..count), the earlier of equal ones (NaN counts as
// largest), and empties the others: kept[slot] is `expert` or -1.  `shared` holds 256 + 2 + warps ints.
template <int warps>
MOEC_DEVICE void keep_largest(const int* slots, int count, const float* weight, int limit, int expert, int* kept,
                              u8* shared) {
  constexpr int threads = warps * 32;
  const Shared<int> bins = shared_array<int>(shared);
  const Shared<int> found = bins + 256;  // the digit, and how many are left to keep among those that have it
  const Shared<int> equals = bins + 258;
  const int lane = lane_index();
  u32 prefix = 0, mask = 0;  // of the limit-th largest key, as far as it is known
  int left = limit;
  if (count > limit) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      for (int i = thread_index(); i < 256; i += threads) bins[i] = 0;
      sync_block();
      for (int i = thread_index(); i < count; i += threads) {
        const u32 key = key_of(weight[slots[i]]);
        if ((key & mask) == prefix) atomic_add(bins, (int)(key >> shift & 255), 1);
      }
      sync_block();
      if (warp_index() == 0) {
        const int highest = 255 - lane * 8;
        int own = 0;
        for (int i = 0; i < 8; ++i) own += bins[highest - i];
        int sum = own;
        MOEC_UNROLL
        for (int step = 1; step < 32; step *= 2) {
          const int below = shuffle_up(sum, step);
          if (lane >= step) sum += below;
        }
        if (sum >= left && sum - own < left) {
          int above = sum - own;
          int digit = highest;
          while (above + bins[digit] < left) above += bins[digit--];
          found[0] = digit;
          found[1] = left - above;
        }
      }
      sync_block();
      prefix |= (u32)(int)found[0] << shift;
      mask |= 255u << shift;
      left = found[1];
      sync_block();
    }
  }
  int before = 0;  // equal ones in earlier turns
  for (int first = 0; first < count; first += threads) {
    const int i = first + thread_index();
    const int slot = i < count ? slots[i] : 0;
    const u32 key = i < count && count > limit ? key_of(weight[slot]) : 0;
    const bool equal = i < count && key == prefix;
    const u32 same = ballot_warp(equal);
    if (lane == 0) equals[warp_index()] = population_count(same);
    sync_block();
    int rank = before + population_count(same & ((1u << lane) - 1));
    for (int warp = 0; warp < warps; ++warp) {
      const int many = equals[warp];
      if (warp < warp_index()) rank += many;
      before += many;
    }
    if (i < count) kept[slot] = count <= limit || key > prefix || (equal && rank < left) ? expert : -1;
    sync_block();
  }
}

}  // namespace moec
