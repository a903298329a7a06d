// Sorting slots by expert, stably: each of a grid's blocks has a share of consecutive slots, each of its warps a part.
#pragma once
#include "moec/primitives.cuh"

namespace moec {

struct Range {
  int first;
  int last;
};

// Share `number` of `shares` of `count` things.
MOEC_DEVICE Range share_of(int count, int number, int shares) {
  const int size = (count + shares - 1) / shares;
  const i64 first = (i64)number * size;
  const i64 last = first + size;
  return {first < count ? (int)first : count, last < count ? (int)last : count};
}

// Slots in the order in which they are sorted; numbers outside of 0..experts - 1 are empty slots.
// by_choice: slot j of all tokens comes before slot j + 1 of any; else tokens come one after the other.
template <int experts_, int slots_per_token_, bool by_choice>
struct Slots {
  static constexpr int experts = experts_;
  static constexpr int slots_per_token = slots_per_token_;
  const int* index;
  int tokens;

  MOEC_DEVICE int count() const { return tokens * slots_per_token; }
  // The slots of block `block` of `blocks`: those of consecutive tokens, where slots come in the order of tokens.
  MOEC_DEVICE Range share(int block, int blocks) const {
    if constexpr (by_choice) {
      return share_of(count(), block, blocks);
    } else {
      const Range of_tokens = share_of(tokens, block, blocks);
      return {of_tokens.first * slots_per_token, of_tokens.last * slots_per_token};
    }
  }
  MOEC_DEVICE int flat(int number) const {
    if constexpr (by_choice) return number % tokens * slots_per_token + number / tokens;
    else return number;
  }
  // -1: empty.
  MOEC_DEVICE int expert(int flat) const {
    const int found = index[flat];
    return (u32)found < (u32)experts ? found : -1;
  }
};

// Lanes whose experts are the same as this lane's; none for an expert of -1.
template <int experts>
MOEC_DEVICE u32 same_expert(int expert) {
  u32 same = ballot_warp(expert >= 0);
  MOEC_UNROLL
  for (int bit = 1; bit < experts; bit *= 2) {
    const u32 set = ballot_warp(expert & bit);
    same &= expert & bit ? set : ~set;
  }
  return expert >= 0 ? same : 0;
}

// What a block needs: counters of each warp and expert, then `start` of each expert.
template <class S, int warps>
struct Sorter {
  static constexpr int experts = S::experts;
  static constexpr int shared_bytes = (warps + 2) * experts * 4;
  S slots;
  Shared<int> counters;  // [warps][experts]
  Shared<int> start;     // [experts]
  Shared<int> totals;    // [experts]

  MOEC_DEVICE Sorter(S slots, u8* shared)
      : slots(slots),
        counters(shared_array<int>(shared)),
        start(shared_array<int>(shared + warps * experts * 4)),
        totals(shared_array<int>(shared + (warps + 1) * experts * 4)) {}

  // The slots of this warp, among those of block `block` of `blocks`.
  MOEC_DEVICE Range mine(int block, int blocks) const {
    const Range all = slots.share(block, blocks);
    const Range part = share_of(all.last - all.first, warp_index(), warps);
    return {all.first + part.first, all.first + part.last};
  }

  // counters[w][e]: how many slots of warp w have expert e.  Ends in a barrier.
  MOEC_DEVICE void count(Range range) const {
    for (int i = thread_index(); i < warps * experts; i += warps * 32) counters[i] = 0;
    sync_block();
    for (int i = range.first + lane_index(); i < range.last; i += 32) {
      const int expert = slots.expert(slots.flat(i));
      if (expert >= 0) atomic_add(counters, warp_index() * experts + expert, 1);
    }
    sync_block();
  }

  // The sum of all warps' counters of an expert.
  MOEC_DEVICE int counted(int expert) const {
    int sum = 0;
    for (int warp = 0; warp < warps; ++warp) sum += counters[warp * experts + expert];
    return sum;
  }

  // start[e] = totals of the experts before e.  Ends in a barrier; one must come before.
  MOEC_DEVICE void scan() const {
    if (warp_index() == 0) {
      const int lane = lane_index();
      int before = 0;
      for (int first = 0; first < experts; first += 32) {
        const int expert = first + lane;
        const int own = expert < experts ? (int)totals[expert] : 0;
        int sum = own;
        MOEC_UNROLL
        for (int step = 1; step < 32; step *= 2) {
          const int below = shuffle_up(sum, step);
          if (lane >= step) sum += below;
        }
        if (expert < experts) start[expert] = before + sum - own;
        before += shuffle(sum, 31);
      }
    }
    sync_block();
  }

  // counters[w][e]: the place of the first slot of warp w with expert e, where the block's first goes to `first(e)`.
  // Ends in a barrier.
  template <class F>
  MOEC_DEVICE void place_warps(F first) const {
    for (int expert = thread_index(); expert < experts; expert += warps * 32) {
      int place = first(expert);
      for (int warp = 0; warp < warps; ++warp) {
        const int own = counters[warp * experts + expert];
        counters[warp * experts + expert] = place;
        place += own;
      }
    }
    sync_block();
  }

  // take(flat slot, expert, place) for every slot of this warp; -1 as expert and place of an empty one.
  template <class F>
  MOEC_DEVICE void place(Range range, F take) const {
    const int lane = lane_index();
    const Shared<int> next = counters + warp_index() * experts;
    for (int first = range.first; first < range.last; first += 32) {
      const int number = first + lane;
      const int flat = number < range.last ? slots.flat(number) : -1;
      const int expert = flat >= 0 ? slots.expert(flat) : -1;
      const u32 same = same_expert<experts>(expert);
      const int before = population_count(same & ((1u << lane) - 1));
      const int place = expert >= 0 ? next[expert] + before : -1;
      sync_warp();
      if (expert >= 0 && before == 0) next[expert] = place + population_count(same);
      sync_warp();
      if (flat >= 0) take(flat, expert, place);
    }
  }
};

// counts[block][expert] of a grid's blocks, for `sort_share`.
template <class S, int warps>
MOEC_DEVICE void count_share(S slots, int* counts, u8* shared) {
  const Sorter<S, warps> sorter(slots, shared);
  sorter.count(sorter.mine(block_index(), grid_blocks()));
  for (int expert = thread_index(); expert < S::experts; expert += warps * 32)
    counts[block_index() * S::experts + expert] = sorter.counted(expert);
}

// take(flat slot, expert, place, rank among the expert's slots) for the slots of this block's share, and
// total(expert, first place, count) once for every expert.
template <class S, int warps, class T, class F>
MOEC_DEVICE void sort_share(S slots, const int* counts, u8* shared, T total, F take) {
  const Sorter<S, warps> sorter(slots, shared);
  const int blocks = grid_blocks();
  const Range mine = sorter.mine(block_index(), blocks);
  const Shared<int> before = sorter.counters;  // of the blocks before this one, until the warps' counters stand there
  const int threads = warps * 32;
  for (int expert = thread_index(); expert < S::experts; expert += threads) {
    sorter.totals[expert] = 0;
    before[expert] = 0;
  }
  sync_block();
  for (int i = thread_index(); i < blocks * S::experts; i += threads) {
    const int expert = i % S::experts;
    const int count = counts[i];
    if (count != 0) {
      atomic_add(sorter.totals, expert, count);
      if (i / S::experts < block_index()) atomic_add(before, expert, count);
    }
  }
  sync_block();
  sorter.scan();
  if (block_index() == 0) {
    for (int expert = thread_index(); expert < S::experts; expert += threads)
      total(expert, (int)sorter.start[expert], (int)sorter.totals[expert]);
  }
  // From here on `totals` is where this block's slots go.
  sync_block();
  for (int expert = thread_index(); expert < S::experts; expert += threads)
    sorter.totals[expert] = sorter.start[expert] + before[expert];
  sync_block();
  sorter.count(mine);
  sorter.place_warps([&](int expert) { return (int)sorter.totals[expert]; });
  sorter.place(mine, [&](int flat, int expert, int place) {
    take(flat, expert, place, expert >= 0 ? place - sorter.start[expert] : -1);
  });
}

// The same for all slots by one block, which needs no counts.
template <class S, int warps, class T, class F>
MOEC_DEVICE void sort_alone(S slots, u8* shared, T total, F take) {
  const Sorter<S, warps> sorter(slots, shared);
  const Range mine = sorter.mine(0, 1);
  sorter.count(mine);
  for (int expert = thread_index(); expert < S::experts; expert += warps * 32)
    sorter.totals[expert] = sorter.counted(expert);
  sync_block();
  sorter.scan();
  for (int expert = thread_index(); expert < S::experts; expert += warps * 32)
    total(expert, (int)sorter.start[expert], (int)sorter.totals[expert]);
  sorter.place_warps([&](int expert) { return (int)sorter.start[expert]; });
  sorter.place(mine, [&](int flat, int expert, int place) {
    take(flat, expert, place, expert >= 0 ? place - sorter.start[expert] : -1);
  });
}

}  // namespace moec
