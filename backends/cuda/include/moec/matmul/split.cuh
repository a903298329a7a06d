// A matmul of bf16 or f16 rows with f32 weights on tensor cores: a weight is the sum of three bf16 (24 bits in all), and
// an element of f16 of two, so that each of three or six products is exact and sums are f32.  Where a row or a weight is infinite, sums may be NaN instead.
#pragma once
#include "moec/factors.cuh"
#include "moec/matmul/results.cuh"
#include "moec/matmul/work.cuh"

namespace moec {

template <int inner_, int columns_, int stages_, class T = bf16>
struct SplitTile {
  using type = T;
  static constexpr int inner = inner_, columns = columns_, stages = stages_;
  static constexpr int rows = 128, width = 64, depth = 64, threads = 256;
  static constexpr int across = 2, high = 2, wide = 4;  // 4 by 2 warps with 2 by 4 products of 16 by 8
  static constexpr int steps = (inner + depth - 1) / depth;
  static constexpr int lhs_bytes = rows * 128, rhs_bytes = width * 256, stage_bytes = lhs_bytes + rhs_bytes;
  static_assert(inner % 8 == 0 && stages >= 3);
};

// The place of 16-byte unit `unit` (0..15) of line `line` of the weights.
MOEC_DEVICE u32 split_place(u32 line, u32 unit) { return line * 256 + ((unit ^ ((line & 3) << 1)) << 4); }

template <class Tile, class P>
MOEC_DEVICE void bring_split(u8* stage, const typename Tile::type* lhs, const float* rhs, const P& plan, const Part& part,
                             int step) {
  const int thread = thread_index();
  MOEC_UNROLL
  for (int i = 0; i < Tile::rows / 32; i++) {
    const int row = thread / 8 + i * 32, unit = thread & 7, at = step * Tile::depth + unit * 8;
    const bool real = row < part.count && at < Tile::inner;
    copy_async(stage + swizzled(row, unit), lhs + (real ? (i64)plan.source(part.first + row) * Tile::inner + at : 0),
               real ? 16 : 0);
  }
  MOEC_UNROLL
  for (int i = 0; i < Tile::width / 16; i++) {
    const int line = thread / 16 + i * 16, unit = thread & 15, at = step * Tile::depth + unit * 4;
    const int column = part.column + line;
    const bool real = column < Tile::columns && at < Tile::inner;
    copy_async(stage + Tile::lhs_bytes + split_place(line, unit),
               rhs + (real ? ((i64)part.expert * Tile::columns + column) * Tile::inner + at : 0), real ? 16 : 0);
  }
}

template <class Tile>
MOEC_DEVICE void multiply_split(const u8* stage, float (&sums)[Tile::high][Tile::wide][4]) {
  constexpr int factors = factors_of<typename Tile::type>;
  const int lane = lane_index(), warp = warp_index();
  const int row = warp / Tile::across * (Tile::high * 16) + (lane & 15);
  const int column = warp % Tile::across * (Tile::wide * 8) + lane / 4;
  MOEC_UNROLL
  for (int k = 0; k < 4; k++) {
    u32 a[Tile::high][factors][4];
    MOEC_UNROLL
    for (int i = 0; i < Tile::high; i++) {
      load_matrices(a[i][0], stage + swizzled(row + i * 16, k * 2 + (lane >> 4)));
      cut_rows<typename Tile::type>(a[i]);
    }
    MOEC_UNROLL
    for (int j = 0; j < Tile::wide; j++) {
      float rest[4];
      MOEC_UNROLL
      for (int half = 0; half < 2; half++) {
        const int at = k * 16 + half * 8 + (lane & 3) * 2;
        const Pair pair =
            load_shared_pair(stage + Tile::lhs_bytes + split_place(column + j * 8, at / 4) + (at & 3) * 4);
        rest[half * 2] = pair.low;
        rest[half * 2 + 1] = pair.high;
      }
      MOEC_UNROLL
      for (int piece = 0; piece < 3; piece++) {
        const u32 low = pack<bf16>(rest[0], rest[1]), high = pack<bf16>(rest[2], rest[3]);
        MOEC_UNROLL
        for (int f = 0; f < factors; f++) {
          MOEC_UNROLL
          for (int i = 0; i < Tile::high; i++) multiply<bf16>(sums[i][j], a[i][f], low, high);
        }
        rest[0] -= float_of(low << 16);
        rest[1] -= float_of(low & 0xffff0000u);
        rest[2] -= float_of(high << 16);
        rest[3] -= float_of(high & 0xffff0000u);
      }
    }
  }
}

// The whole kernel: 256 threads, stages * stage_bytes + 4 * experts bytes of shared memory.
template <class Tile, class P, class Epilogue>
MOEC_DEVICE void multiply_by_split(u8* shared, const typename Tile::type* lhs, const P& plan, const float* rhs,
                                   const Epilogue& epilogue) {
  const Work<P, Tile::rows, Tile::columns, Tile::width> work{
      plan, shared_array<int>(shared + Tile::stages * Tile::stage_bytes)};
  if (warp_index() == 0) work.count();
  sync_block();
  const int lane = lane_index(), warp = warp_index();
  const int parts = work.parts();
  for (int number = block_index(); number < parts; number += grid_blocks()) {
    const Part part = work.part(number);
    const auto bring = [&](int step) {
      if (step < Tile::steps)
        bring_split<Tile>(shared + step % Tile::stages * Tile::stage_bytes, lhs, rhs, plan, part, step);
      copies_commit();
    };
    sync_block();  // the stages of the last part have been read
    for (int step = 0; step < Tile::stages - 1; step++) bring(step);
    float sums[Tile::high][Tile::wide][4] = {};
    for (int step = 0; step < Tile::steps; step++) {
      copies_wait<Tile::stages - 2>();
      sync_block();
      bring(step + Tile::stages - 1);
      multiply_split<Tile>(shared + step % Tile::stages * Tile::stage_bytes, sums);
    }
    MOEC_UNROLL
    for (int i = 0; i < Tile::high; i++) {
      MOEC_UNROLL
      for (int half = 0; half < 2; half++) {
        const int row = (warp / Tile::across * Tile::high + i) * 16 + half * 8 + lane / 4;
        const bool real = row < part.count;
        const int line = part.first + (real ? row : 0);
        emit_row<Tile::columns, 1, Tile::wide>(
            epilogue, epilogue.row(line, part.expert, plan.slot(line)), line, real,
            part.column + warp % Tile::across * (Tile::wide * 8), Tile::columns,
            [&](int, int block, int odd) { return sums[i][block][half * 2 + odd]; });
      }
    }
  }
  copies_wait<0>();
}

}  // namespace moec
