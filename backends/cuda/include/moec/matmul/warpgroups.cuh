// A grouped matmul of warpgroups (sm_90a): rows are gathered by cp.async, weights come by TMA, products are wgmma's.
//
// Three warpgroups: the first brings lines of 64 elements into a ring of stages, the others multiply 64 rows each by
// all columns of the part, `width` of each weight beside each other, so that a thread holds the sums of the same
// element of all weights.
#pragma once
#include "moec/matmul/results.cuh"
#include "moec/matmul/ring.cuh"

namespace moec {

// The inner dimension is `segments` pieces of `inner` elements, each with its own rows and weights.
// `transposed`: weights are [E, inner, columns] and stand in shared memory as they lie, lines along the columns.
template <class T_, int segments_, int inner_, int columns_, int products_, int width_, int stages_, bool transposed_>
struct WarpgroupTile {
  using T = T_;
  static constexpr int segments = segments_, inner = inner_, columns = columns_, products = products_, width = width_;
  static constexpr int stages = stages_;
  static constexpr bool transposed = transposed_;
  static constexpr int rows = 128, depth = 64;
  static constexpr int steps_each = (inner + depth - 1) / depth, steps = segments * steps_each;
  static constexpr int wide = width * products;
  static constexpr int lhs_bytes = rows * 128, rhs_bytes = wide * 128, stage_bytes = lhs_bytes + rhs_bytes;
  static_assert(inner % 8 == 0 && width % (transposed ? 64 : 8) == 0 && wide <= 256);
  static_assert(!transposed || columns % 8 == 0);
};

// One thread has TMA bring the weights of a stage, of segment `segment` from element `k` on.
template <class Tile, class Maps>
MOEC_DEVICE void bring_weights(u8* stage, const Maps& maps, Barrier* full, const Part& part, int segment, int k) {
  MOEC_UNROLL
  for (int p = 0; p < Tile::products; p++) {
    const TensorMap* map = maps[p];
    MOEC_UNROLL
    for (int i = 1; i < Tile::segments; i++)
      if (i == segment) map = maps[i * Tile::products + p];
    u8* const to = stage + p * Tile::width * 128;
    if constexpr (Tile::transposed) {
      MOEC_UNROLL
      for (int c = 0; c < Tile::width; c += 64) copy_box(to + c * 128, map, full, part.column + c, k, part.expert);
    } else {
      copy_box(to, map, full, k, part.column, part.expert);
    }
  }
}

// Brings the stages of all parts of this block.  128 threads.
template <class Tile, class W, class Maps>
MOEC_DEVICE void bring_parts(const W& work, const typename Tile::T* const (&lhs)[Tile::segments], const Maps& maps,
                             Ring<Tile> ring) {
  const int parts = work.parts();
  for (int number = work.first(); number < parts; number += work.step()) {
    const Part part = work.part(number);
    const GatheredRows<Tile> rows(work.plan, part);
    for (int k = 0; k < Tile::steps; k++) {
      const int segment = k / Tile::steps_each, first = k % Tile::steps_each * Tile::depth;
      u8* const stage = ring.to_fill();
      if (thread_index() == 0) {
        barrier_arrive_expect(ring.full_of(), Tile::rhs_bytes);
        bring_weights<Tile>(stage + Tile::lhs_bytes, maps, ring.full_of(), part, segment, first);
      }
      rows.bring(stage, chosen<Tile::segments>(lhs, segment), first);
      ring.started();
    }
  }
  ring.all_started();
}

// Multiplies the stages of all parts of this block.  Warpgroup `group` (0, 1) of the two that multiply.
template <class Tile, class W, class Epilogue>
MOEC_DEVICE void multiply_parts(const W& work, int group, const Epilogue& epilogue, Ring<Tile> ring) {
  const int thread = thread_index() & 127, lane = lane_index();
  const int parts = work.parts();
  float sums[Tile::wide / 2];
  for (int number = work.first(); number < parts; number += work.step()) {
    const Part part = work.part(number);
    for (int k = 0; k < Tile::steps; k++) {
      const u8* const stage = ring.to_multiply();
      wgmma_fence();
      MOEC_UNROLL
      for (int n = 0; n < Tile::depth / 16; n++) {
        const u64 a = matrix_descriptor(stage + group * 64 * 128 + n * 32, 16, 1024);
        const u8* const rhs = stage + Tile::lhs_bytes;
        const u64 b = Tile::transposed ? matrix_descriptor(rhs + n * 2048, 64 * 128, 1024)
                                       : matrix_descriptor(rhs + n * 32, 16, 1024);
        wgmma<typename Tile::T, Tile::wide, 0, Tile::transposed>(sums, a, b, (k | n) != 0);
      }
      wgmma_commit();
      if (k > 0) {
        wgmma_wait<1>(sums);
        ring.left(1);
      }
    }
    wgmma_wait<0>(sums);
    ring.left(0);
    const auto emit = [&](int half, int place) {
      const int row = group * 64 + thread / 32 * 16 + lane / 4 + half * 8;
      const bool real = row < part.count;
      const int line = part.first + (real ? row : 0);
      emit_row<Tile::columns, Tile::products, Tile::width / 8>(
          epilogue, epilogue.row(line, part.expert, work.plan.slot(line)), line, real, part.column, Tile::columns,
          [&](int p, int block, int odd) { return sums[p * (Tile::width / 2) + block * 4 + place * 2 + odd]; });
    };
    if constexpr (Epilogue::results <= 2) {
      emit(0, 0);
      emit(1, 1);
    } else {
      // What both halves want at once would not fit in registers: the second takes the place of the first.
      MOEC_UNROLL_BY(1)
      for (int half = 0; half < 2; half++) {
        emit(half, 0);
        MOEC_UNROLL
        for (int i = 0; i < Tile::wide / 2; i += 4) {
          sums[i] = sums[i + 2];
          sums[i + 1] = sums[i + 3];
        }
      }
    }
  }
}

// The whole kernel: 384 threads, stages * stage_bytes + 1024 + 4 * experts bytes of shared memory.
template <class Tile, class P, class Epilogue, class Maps>
MOEC_DEVICE void multiply_by_warpgroups(u8* shared, const typename Tile::T* const (&lhs)[Tile::segments],
                                        const P& plan, const Maps& maps, const Epilogue& epilogue) {
  const Ring<Tile> ring(shared);
  const Work<P, Tile::rows, Tile::columns, Tile::width> work{plan, shared_array<int>(ring.end())};
  const int thread = thread_index();
  if (thread == 0) {
    ring.prepare(1);
    MOEC_UNROLL
    for (int p = 0; p < Tile::segments * Tile::products; p++) prefetch_map(maps[p]);
  }
  if (warp_index() == 1) work.count();
  sync_block();
  if (thread < 128) {
    lower_registers<40>();
    bring_parts<Tile>(work, lhs, maps, ring);
  } else {
    raise_registers<232>();
    multiply_parts<Tile>(work, thread / 128 - 1, epilogue, ring);
  }
}

}  // namespace moec
