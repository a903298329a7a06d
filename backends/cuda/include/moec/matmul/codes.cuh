// Weights as codes of one byte, with a scale for each channel: they stay codes until a warp has them in registers.
//
// A lane gets four codes that are neighbours along k with one word, where a product takes two and two that are 8 apart.
// The sum over k does not ask for an order: rows are read in the order of the codes, eight bytes a lane.
#pragma once
#include "moec/matmul/work.cuh"
#include "moec/scalar.cuh"

namespace moec {

// Codes [E, N, K] and their scales [E, N].
template <class Code_, class Scale_>
struct Coded {
  using Code = Code_;
  using Scale = Scale_;
  const Code* codes;
  const Scale* scales;
};

// The place of 16 codes of column `column`, number `unit` (0..3) of a stage: eight columns lie in different banks.
MOEC_DEVICE u32 place_of_codes(u32 column, u32 unit) { return column * 64 + ((unit ^ (column >> 1 & 3)) << 4); }

// The place of 8 elements of row `row`, number `unit` (0..7): 16 elements of four rows lie in different banks.
MOEC_DEVICE u32 place_of_rows(u32 row, u32 unit) { return row * 128 + ((unit ^ (row & 3) << 1) << 4); }

// Starts copying what `part` needs of step `step`, of all products; the block's threads share it.
template <class Tile>
MOEC_DEVICE void copy_codes(u8* to, const typename Tile::Weight* weights, const Part& part, int step) {
  constexpr int lines = Tile::threads / 4, count = (Tile::width + lines - 1) / lines;
  const int unit = thread_index() & 3, k = step * Tile::depth + unit * 16;
  MOEC_UNROLL
  for (int p = 0; p < Tile::products; p++) {
    MOEC_UNROLL
    for (int i = 0; i < count; i++) {
      const int line = (thread_index() >> 2) + i * lines, column = part.column + line;
      if (Tile::width % lines != 0 && line >= Tile::width) continue;
      const bool real = column < Tile::columns && k < Tile::inner;
      const i64 at = ((i64)part.expert * Tile::columns + column) * Tile::inner + k;
      copy_async(to + p * Tile::width * 64 + place_of_codes(line, unit), weights[p].codes + (real ? at : 0),
                 real ? 16 : 0);
    }
  }
}

// Adds what one stage gives to the sums of this warp, which are of codes.
template <class Tile>
MOEC_DEVICE void multiply_codes(const u8* stage, float (&sums)[Tile::products][Tile::high][Tile::wide][4]) {
  const int lane = lane_index(), warp = warp_index();
  const int row = warp / Tile::across * (Tile::high * 16) + (lane >> 2);
  const int column = warp % Tile::across * (Tile::wide * 8) + (lane & 7);
  u32 codes[Tile::products][Tile::wide][4];
  MOEC_UNROLL
  for (int p = 0; p < Tile::products; p++) {
    MOEC_UNROLL
    for (int j = 0; j < Tile::wide; j++)
      load_matrices(codes[p][j], stage + Tile::lhs_bytes + p * Tile::width * 64 +
                                     place_of_codes(column + j * 8, lane >> 3));
  }
  MOEC_UNROLL
  for (int k = 0; k < 4; k++) {
    u32 a[Tile::high][4];
    MOEC_UNROLL
    for (int i = 0; i < Tile::high; i++) {
      MOEC_UNROLL
      for (int half = 0; half < 2; half++) {
        const Pair four = load_shared_pair(
            stage + place_of_rows(row + i * 16 + half * 8, k * 2 + (lane >> 1 & 1)) + (lane & 1) * 8);
        a[i][half] = bits_of(four.low);
        a[i][2 + half] = bits_of(four.high);
      }
    }
    MOEC_UNROLL
    for (int p = 0; p < Tile::products; p++) {
      MOEC_UNROLL
      for (int j = 0; j < Tile::wide; j++) {
        u32 b[2];
        decode<typename Tile::T, typename Tile::Weight::Code>(codes[p][j][k], b);
        MOEC_UNROLL
        for (int i = 0; i < Tile::high; i++) multiply<typename Tile::T>(sums[p][i][j], a[i], b[0], b[1]);
      }
    }
  }
}

// Sums of codes become sums of weights.
template <class Tile>
MOEC_DEVICE void scale_sums(const typename Tile::Weight* weights, const Part& part,
                            float (&sums)[Tile::products][Tile::high][Tile::wide][4]) {
  const int first = part.column + warp_index() % Tile::across * (Tile::wide * 8) + (lane_index() & 3) * 2;
  MOEC_UNROLL
  for (int p = 0; p < Tile::products; p++) {
    const auto* const scales = weights[p].scales + (i64)part.expert * Tile::columns;
    MOEC_UNROLL
    for (int j = 0; j < Tile::wide; j++) {
      MOEC_UNROLL
      for (int odd = 0; odd < 2; odd++) {
        const int column = first + j * 8 + odd;
        const float scale = load(scales + (column < Tile::columns ? column : Tile::columns - 1));
        MOEC_UNROLL
        for (int i = 0; i < Tile::high; i++) {
          sums[p][i][j][odd] *= scale;
          sums[p][i][j][2 + odd] *= scale;
        }
      }
    }
  }
}

}  // namespace moec
