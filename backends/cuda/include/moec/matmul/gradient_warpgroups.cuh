// Gradients of weights by warpgroups (sm_90a): the same sums as in gradient.cuh, by wgmma.
//
// Three warpgroups: the first brings 64 rows of both operands a stage, the others multiply 64 columns of `a` each by
// all of the part's columns of `b`.  Both operands stand in shared memory as they lie, lines of 64 columns.
#pragma once
#include "moec/matmul/operands.cuh"
#include "moec/matmul/results.cuh"
#include "moec/matmul/ring.cuh"

namespace moec {

template <class T_, class Out_, int wide_, int stages_>
struct GradientWarpgroupTile {
  using T = T_;
  using Out = Out_;
  static constexpr int high = 128, wide = wide_, stages = stages_, depth = 64;
  static constexpr int piece = depth * 128;  // bytes of 64 columns
  static constexpr int a_bytes = high / 64 * piece, stage_bytes = a_bytes + wide / 64 * piece;
  static_assert(wide % 64 == 0 && wide <= 256);
};

// Which columns of which expert a part of the work is.
template <class Tile, class R, class A, class B>
struct GradientWork {
  static constexpr int down = (A::columns + Tile::high - 1) / Tile::high;
  static constexpr int across = (B::columns + Tile::wide - 1) / Tile::wide;
  static constexpr int parts = R::count * down * across;
  const R& rows;
  const A& a;
  const B& b;

  MOEC_DEVICE Part part(int number) const { return rows.part(number / (down * across)); }
  MOEC_DEVICE int a_column(int number) const { return number / across % down * Tile::high; }
  MOEC_DEVICE int b_column(int number) const { return number % across * Tile::wide; }
};

// Starts to copy this thread's 16 bytes of each 64 of `width` columns of a row; zeros where `row` is negative.
template <class Tile, int width, class O>
MOEC_DEVICE void bring_row(u8* to, const O& operand, int row, int column, int line) {
  const int unit = thread_index() & 7;
  MOEC_UNROLL
  for (int c = 0; c < width; c += 64) {
    const int at = column + c + unit * 8;
    const int real = at < O::columns ? row : -1;
    bring_unit<O::columns>(to + c / 64 * Tile::piece + swizzled(line, unit), operand.data, real, at);
  }
}

template <class Tile, class W>
MOEC_DEVICE void bring_gradient(const W& work, Ring<Tile> ring) {
  for (int number = block_index(); number < W::parts; number += grid_blocks()) {
    const Part part = work.part(number);
    for (int first = 0; first < part.count; first += Tile::depth) {
      u8* const stage = ring.to_fill();
      MOEC_UNROLL_BY(1)  // the addresses of all rows at once would not fit in registers
      for (int i = 0; i < 4; i++) {
        const int line = thread_index() / 8 + i * 16, row = part.first + first + line;
        const bool real = first + line < part.count;
        bring_row<Tile, Tile::high>(stage, work.a, real ? work.a.source(row) : -1, work.a_column(number), line);
        bring_row<Tile, Tile::wide>(stage + Tile::a_bytes, work.b, real ? work.b.source(row) : -1,
                                    work.b_column(number), line);
      }
      ring.started();
    }
  }
  ring.all_started();
}

template <class Tile, class W, int a_columns, int b_columns>
MOEC_DEVICE void multiply_gradients(const W& work, int group, Ring<Tile> ring, typename Tile::Out* out) {
  const int thread = thread_index() & 127, lane = lane_index();
  const Sum<typename Tile::Out> epilogue{out};
  float sums[Tile::wide / 2];
  for (int number = block_index(); number < W::parts; number += grid_blocks()) {
    const Part part = work.part(number);
    const auto emit = [&](auto sum) {
      MOEC_UNROLL
      for (int half = 0; half < 2; half++) {
        const int n = work.a_column(number) + group * 64 + thread / 32 * 16 + lane / 4 + half * 8;
        emit_row<b_columns, 1, Tile::wide / 8>(epilogue, {}, (i64)part.expert * a_columns + n, n < a_columns,
                                               work.b_column(number), b_columns,
                                               [&](int, int block, int odd) { return sum(block * 4 + half * 2 + odd); });
      }
    };
    if (part.count == 0) {
      emit([](int) { return 0.0f; });
      continue;
    }
    for (int first = 0; first < part.count; first += Tile::depth) {
      const u8* const stage = ring.to_multiply();
      wgmma_fence();
      MOEC_UNROLL
      for (int n = 0; n < Tile::depth / 16; n++)
        wgmma<typename Tile::T, Tile::wide, 1, 1>(
            sums, matrix_descriptor(stage + group * Tile::piece + n * 2048, Tile::piece, 1024),
            matrix_descriptor(stage + Tile::a_bytes + n * 2048, Tile::piece, 1024), (first | n) != 0);
      wgmma_commit();
      if (first > 0) {
        wgmma_wait<1>(sums);
        ring.left(1);
      }
    }
    wgmma_wait<0>(sums);
    ring.left(0);
    emit([&](int i) { return sums[i]; });
  }
}

// The whole kernel: 384 threads, stages * (stage_bytes + 16) bytes of shared memory.
template <class Tile, class R, class A, class B>
MOEC_DEVICE void gradient_by_warpgroups(u8* shared, const R& rows, const A& a, const B& b, typename Tile::Out* out) {
  const Ring<Tile> ring(shared);
  const GradientWork<Tile, R, A, B> work{rows, a, b};
  const int thread = thread_index();
  if (thread == 0) {
    ring.prepare(0);
  }
  sync_block();
  if (thread < 128) {
    lower_registers<40>();
    bring_gradient<Tile>(work, ring);
  } else {
    raise_registers<232>();
    multiply_gradients<Tile, decltype(work), A::columns, B::columns>(work, thread / 128 - 1, ring, out);
  }
}

}  // namespace moec
