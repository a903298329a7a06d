// Gradients of weights: out[e, n, k] = sum over the rows r of expert e of a[r, n] * b[r, k], by mma.sync.
//
// Both operands stand in shared memory as they lie, lines of 64 columns, 64 rows a stage.
#pragma once
#include "moec/matmul/operands.cuh"
#include "moec/matmul/results.cuh"

namespace moec {

template <class T_, class Out_, int high_, int wide_, int stages_, int down_, int across_>
struct GradientTile {
  using T = T_;
  using Out = Out_;
  static constexpr int high = high_, wide = wide_, stages = stages_, down = down_, across = across_;
  static constexpr int depth = 64, threads = 32 * down * across;
  static constexpr int a_bytes = high * 128, b_bytes = wide * 128, stage_bytes = a_bytes + b_bytes;
  static constexpr int warp_high = high / down / 16, warp_wide = wide / across / 8;  // in products of 16 by 8
  static_assert(high % 64 == 0 && wide % 64 == 0 && warp_wide % 2 == 0 && stages >= 3);
};

// Starts to copy `columns` columns from `column` on of `depth` rows from `row` of the part on; zeros beyond.
template <class Tile, int width, class O>
MOEC_DEVICE void bring_operand(u8* stage, const O& operand, const Part& part, int row, int column) {
  constexpr int lines = Tile::threads / 8;
  const int unit = thread_index() & 7;
  MOEC_UNROLL
  for (int i = 0; i < width / lines; i++) {
    const int line = (thread_index() >> 3) + i * lines;
    const int at = column + line / 64 * 64 + unit * 8, of = row + line % 64;
    const int from = of < part.count && at < O::columns ? operand.source(part.first + of) : -1;
    bring_unit<O::columns>(stage + swizzled(line, unit), operand.data, from, at);
  }
}

template <class Tile>
MOEC_DEVICE void multiply_gradient(const u8* stage, float (&sums)[Tile::warp_high][Tile::warp_wide][4]) {
  const int lane = lane_index(), warp = warp_index();
  const int high = warp / Tile::across * (Tile::warp_high * 16), wide = warp % Tile::across * (Tile::warp_wide * 8);
  MOEC_UNROLL
  for (int k = 0; k < 4; k++) {
    u32 a[Tile::warp_high][4];
    MOEC_UNROLL
    for (int i = 0; i < Tile::warp_high; i++) {
      const int at = high + i * 16 + (lane >> 3 & 1) * 8;
      load_matrices_transposed(
          a[i], stage + swizzled(at / 64 * 64 + k * 16 + (lane >> 4) * 8 + (lane & 7), at / 8 & 7));
    }
    MOEC_UNROLL
    for (int j = 0; j < Tile::warp_wide; j += 2) {
      const int at = wide + j * 8 + (lane >> 4) * 8;
      u32 b[4];
      load_matrices_transposed(b, stage + Tile::a_bytes + swizzled(at / 64 * 64 + k * 16 + (lane & 15), at / 8 & 7));
      MOEC_UNROLL
      for (int i = 0; i < Tile::warp_high; i++) {
        multiply<typename Tile::T>(sums[i][j], a[i], b[0], b[1]);
        multiply<typename Tile::T>(sums[i][j + 1], a[i], b[2], b[3]);
      }
    }
  }
}

// The whole kernel: Tile::threads threads, stages * stage_bytes bytes of shared memory.
template <class Tile, class R, class A, class B>
MOEC_DEVICE void gradient_by_warps(u8* shared, const R& rows, const A& a, const B& b, typename Tile::Out* out) {
  constexpr int down = (A::columns + Tile::high - 1) / Tile::high, across = (B::columns + Tile::wide - 1) / Tile::wide;
  const int lane = lane_index(), warp = warp_index();
  const Sum<typename Tile::Out> epilogue{out};
  for (int number = block_index(); number < R::count * down * across; number += grid_blocks()) {
    const Part part = rows.part(number / (down * across));
    const int n0 = number / across % down * Tile::high, k0 = number % across * Tile::wide;
    const int steps = (part.count + Tile::depth - 1) / Tile::depth;
    const auto bring = [&](int step) {
      if (step < steps) {
        u8* const stage = shared + step % Tile::stages * Tile::stage_bytes;
        bring_operand<Tile, Tile::high>(stage, a, part, step * Tile::depth, n0);
        bring_operand<Tile, Tile::wide>(stage + Tile::a_bytes, b, part, step * Tile::depth, k0);
      }
      copies_commit();
    };
    sync_block();  // the stages of the last part have been read
    for (int step = 0; step < Tile::stages - 1; step++) bring(step);
    float sums[Tile::warp_high][Tile::warp_wide][4] = {};
    for (int step = 0; step < steps; step++) {
      copies_wait<Tile::stages - 2>();
      sync_block();
      bring(step + Tile::stages - 1);
      multiply_gradient<Tile>(shared + step % Tile::stages * Tile::stage_bytes, sums);
    }
    MOEC_UNROLL
    for (int i = 0; i < Tile::warp_high; i++) {
      MOEC_UNROLL
      for (int half = 0; half < 2; half++) {
        const int n = n0 + (warp / Tile::across * Tile::warp_high + i) * 16 + half * 8 + lane / 4;
        emit_row<B::columns, 1, Tile::warp_wide>(
            epilogue, {}, (i64)part.expert * A::columns + n, n < A::columns,
            k0 + warp % Tile::across * (Tile::warp_wide * 8), B::columns,
            [&](int, int block, int odd) { return sums[i][block][half * 2 + odd]; });
      }
    }
  }
  copies_wait<0>();
}

}  // namespace moec
