// A grouped matmul in f32, for any types and sizes: 256 threads with 4 rows by 4 columns of each weight.
//
// Sums run in ascending order of the inner dimension, one fused multiply-add after the other.
#pragma once
#include "moec/matmul/codes.cuh"

namespace moec {

// The inner dimension is `segments` pieces of `inner` elements, each with its own rows and weights.
// Weight: a pointer to floats, or Coded, with a scale for each `group` inputs (0: those of channels).
template <class Lhs_, class Weight_, int segments_, int inner_, int columns_, int products_, bool transposed_,
          int group_>
struct LaneTile {
  using Lhs = Lhs_;
  using Weight = Weight_;
  static constexpr int segments = segments_, inner = inner_, columns = columns_, products = products_;
  static constexpr bool transposed = transposed_;
  static constexpr int group = group_;
  static constexpr int rows = 64, width = 64, depth = 16, line = 68;  // of floats: rows of shared memory, padded
  static constexpr int lhs_floats = depth * line, floats = lhs_floats * (1 + products);
};

// Weight `k` of column `column` of an expert.
template <class Tile, class T>
MOEC_DEVICE float weight_at(const T* weight, i64 expert, int column, int k) {
  return to_float(weight[Tile::transposed ? (expert * Tile::inner + k) * Tile::columns + column
                                          : (expert * Tile::columns + column) * Tile::inner + k]);
}
template <class Tile, class Code, class Scale>
MOEC_DEVICE float weight_at(const Coded<Code, Scale>& weight, i64 expert, int column, int k) {
  static_assert(!Tile::transposed);
  const i64 row = expert * Tile::columns + column;
  const float code = code_at<Tile::inner>(weight.codes, row, k);
  if constexpr (Tile::group == 0) return code * load(weight.scales + row);
  constexpr int group = Tile::group != 0 ? Tile::group : Tile::inner;
  constexpr int groups = Tile::inner / group, pitch = (Tile::columns + 7) / 8 * 8;
  return code * load(weight.scales + (expert * groups + k / group) * pitch + column);
}

// The operands' next `depth` elements of the inner dimension, in registers of all threads.
template <class Tile, class P>
struct LaneOperands {
  float lhs[4];
  float rhs[Tile::products][4];

  MOEC_DEVICE void load_from(const P& plan, const Part& part, const typename Tile::Lhs* rows,
                             const typename Tile::Weight* weights, int k) {
    const int thread = thread_index();
    MOEC_UNROLL
    for (int i = 0; i < 4; i++) {
      const int row = thread / 16 + i * 16, at = k + thread % 16;
      lhs[i] = row < part.count && at < Tile::inner
                   ? to_float(rows[(i64)plan.source(part.first + row) * Tile::inner + at])
                   : 0.0f;
      const int n = Tile::transposed ? thread % 64 : thread / 16 + i * 16;
      const int inner = k + (Tile::transposed ? thread / 64 + i * 4 : thread % 16);
      const int column = part.column + n;
      const bool real = column < Tile::columns && inner < Tile::inner;
      MOEC_UNROLL
      for (int p = 0; p < Tile::products; p++)
        rhs[p][i] = real ? weight_at<Tile>(weights[p], part.expert, column, inner) : 0.0f;
    }
  }

  MOEC_DEVICE void store_to(Shared<float> shared) const {
    const int thread = thread_index();
    MOEC_UNROLL
    for (int i = 0; i < 4; i++) {
      shared[thread % 16 * Tile::line + thread / 16 + i * 16] = lhs[i];
      const int n = Tile::transposed ? thread % 64 : thread / 16 + i * 16;
      const int inner = Tile::transposed ? thread / 64 + i * 4 : thread % 16;
      MOEC_UNROLL
      for (int p = 0; p < Tile::products; p++)
        shared[(p + 1) * Tile::lhs_floats + inner * Tile::line + n] = rhs[p][i];
    }
  }
};

template <class Tile>
MOEC_DEVICE void multiply_lanes(Shared<float> shared, int down, int across, float (&sums)[Tile::products][4][4]) {
  MOEC_UNROLL
  for (int at = 0; at < Tile::depth; at++) {
    float a[4];
    MOEC_UNROLL
    for (int i = 0; i < 4; i++) a[i] = shared[at * Tile::line + down * 4 + i];
    MOEC_UNROLL
    for (int p = 0; p < Tile::products; p++) {
      float b[4];
      MOEC_UNROLL
      for (int j = 0; j < 4; j++) b[j] = shared[(p + 1) * Tile::lhs_floats + at * Tile::line + across + j * 16];
      MOEC_UNROLL
      for (int i = 0; i < 4; i++) {
        MOEC_UNROLL
        for (int j = 0; j < 4; j++) sums[p][i][j] = fmaf(a[i], b[j], sums[p][i][j]);
      }
    }
  }
}

// The whole kernel: 256 threads, 4 * (floats + experts) bytes of shared memory.
template <class Tile, class P, class Epilogue>
MOEC_DEVICE void multiply_by_lanes(u8* memory, const typename Tile::Lhs* const (&lhs)[Tile::segments], const P& plan,
                                   const typename Tile::Weight (&rhs)[Tile::segments * Tile::products],
                                   const Epilogue& epilogue) {
  const Shared<float> shared = shared_array<float>(memory);
  const Work<P, Tile::rows, Tile::columns, Tile::width> work{plan, shared_array<int>(memory + Tile::floats * 4)};
  if (warp_index() == 0) work.count();
  sync_block();
  const int down = thread_index() / 16, across = thread_index() % 16;
  const int parts = work.parts();
  for (int number = work.first(); number < parts; number += work.step()) {
    const Part part = work.part(number);
    float sums[Tile::products][4][4] = {};
    LaneOperands<Tile, P> next;
    MOEC_UNROLL
    for (int segment = 0; segment < Tile::segments; segment++) {
      const typename Tile::Lhs* const rows = lhs[segment];
      const typename Tile::Weight* const weights = rhs + segment * Tile::products;
      next.load_from(plan, part, rows, weights, 0);
      for (int k = 0; k < Tile::inner; k += Tile::depth) {
        sync_block();
        next.store_to(shared);
        sync_block();
        if (k + Tile::depth < Tile::inner) next.load_from(plan, part, rows, weights, k + Tile::depth);
        multiply_lanes<Tile>(shared, down, across, sums);
      }
    }
    MOEC_UNROLL
    for (int i = 0; i < 4; i++) {
      const int row = down * 4 + i, line = part.first + row;
      if (row >= part.count) continue;
      const typename Epilogue::Row of = epilogue.row(line, part.expert, plan.slot(line));
      MOEC_UNROLL
      for (int j = 0; j < 4; j++) {
        const int column = part.column + across + j * 16;
        if (column >= Tile::columns) continue;
        float given[Tile::products], out[Epilogue::results];
        MOEC_UNROLL
        for (int p = 0; p < Tile::products; p++) given[p] = sums[p][i][j];
        epilogue.value(of, column, given, out);
        MOEC_UNROLL
        for (int n = 0; n < Epilogue::results; n++) store(epilogue.to(n) + (i64)line * Tile::columns + column, out[n]);
      }
    }
  }
}

}  // namespace moec
