// A dense matmul for few tokens: a warp has one column and a few rows, and adds up in f32 over its lanes.
#pragma once
#include "moec/matmul/work.cuh"
#include "moec/scalar.cuh"

namespace moec {

template <class Lhs_, class Rhs_, int inner_, int columns_, int products_>
struct DotTile {
  using Lhs = Lhs_;
  using Rhs = Rhs_;
  static constexpr int inner = inner_, columns = columns_, products = products_;
  static constexpr int rows = 4, warps = 8;
  static constexpr int together = inner % 4 == 0 ? 4 : 1;  // elements of a lane that lie beside each other
};

// Elements that lie beside each other, read at once where they are aligned to their size together.
template <int count, class T>
MOEC_DEVICE void load_together(const T* from, float (&to)[count]) {
  struct alignas(sizeof(T) * count) Together {
    T element[count];
  };
  const Together all = *(const Together*)from;
  MOEC_UNROLL
  for (int i = 0; i < count; i++) to[i] = to_float(all.element[i]);
}

// The whole kernel: 256 threads.
template <class Tile, class Epilogue>
MOEC_DEVICE void multiply_by_dots(const typename Tile::Lhs* lhs, int tokens,
                                  const typename Tile::Rhs* const (&rhs)[Tile::products], const Epilogue& epilogue) {
  constexpr int step = 32 * Tile::together;
  const int lane = lane_index();
  const int parts = (tokens + Tile::rows - 1) / Tile::rows * Tile::columns;
  for (int part = block_index() * Tile::warps + warp_index(); part < parts; part += grid_blocks() * Tile::warps) {
    const int column = part % Tile::columns, first = part / Tile::columns * Tile::rows;
    const int count = tokens - first < Tile::rows ? tokens - first : Tile::rows;
    float sums[Tile::products][Tile::rows] = {};
    MOEC_UNROLL_BY(4)
    for (int at = lane * Tile::together; at < Tile::inner; at += step) {
      float b[Tile::products][Tile::together];
      MOEC_UNROLL
      for (int p = 0; p < Tile::products; p++) load_together(rhs[p] + (i64)column * Tile::inner + at, b[p]);
      MOEC_UNROLL
      for (int row = 0; row < Tile::rows; row++) {
        // A row that does not exist is the last one again, and is not stored.
        const int of = first + (row < count ? row : count - 1);
        float a[Tile::together];
        load_together(lhs + (i64)of * Tile::inner + at, a);
        MOEC_UNROLL
        for (int p = 0; p < Tile::products; p++) {
          MOEC_UNROLL
          for (int i = 0; i < Tile::together; i++) sums[p][row] = fmaf(a[i], b[p][i], sums[p][row]);
        }
      }
    }
    MOEC_UNROLL
    for (int row = 0; row < Tile::rows; row++) {
      float given[Tile::products], out[Epilogue::results];
      MOEC_UNROLL
      for (int p = 0; p < Tile::products; p++) {
        given[p] = sums[p][row];
        MOEC_UNROLL
        for (int mask = 16; mask > 0; mask /= 2) given[p] += shuffle_xor(given[p], mask);
      }
      const int line = first + row;
      if (row >= count || lane != row) continue;
      epilogue.value(epilogue.row(line, 0, line), column, given, out);
      MOEC_UNROLL
      for (int n = 0; n < Epilogue::results; n++) store(epilogue.to(n) + (i64)line * Tile::columns + column, out[n]);
    }
  }
}

}  // namespace moec
