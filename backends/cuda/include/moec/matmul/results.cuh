// What becomes of the sums of a matmul: an epilogue makes results of them, which are stored.
//
// An Epilogue has: Row, what is the same along a row; row(row, expert, slot); value(row, column, sums, out), the results
// of one element; Out, their type in memory; results, how many there are; to(n), where result n begins.
#pragma once
#include "moec/scalar.cuh"

namespace moec {

// Four words in each of four lanes, word i of lane q becomes word q of lane i.
MOEC_DEVICE void transpose_quad(u32 (&word)[4]) {
  const int lane = lane_index();
  MOEC_UNROLL
  for (int bit = 1; bit < 4; bit *= 2) {
    const bool upper = lane & bit;
    MOEC_UNROLL
    for (int i = 0; i < 4; i++) {
      if (i & bit) continue;
      const u32 other = shuffle_xor(upper ? word[i] : word[i | bit], bit);
      if (upper) word[i] = other;
      else word[i | bit] = other;
    }
  }
}

template <class Out>
MOEC_DEVICE void store_pair(Out* to, float low, float high, bool both) {
  if constexpr (sizeof(Out) == 2) {
    if (both) {
      *(u32*)to = pack<Out>(low, high);
      return;
    }
  }
  to[0] = from_float<Out>(low);
  if (both) to[1] = from_float<Out>(high);
}

// Results of one row, for `count` blocks of 8 columns from `column` on, of which `end` is the first that is not wanted.
// Lane 4 l + c has columns 2 c and 2 c + 1 of each block: sum(p, block, odd) of product p.  All lanes of the warp call
// it, each with a row that exists; nothing is stored where `store` is false.
template <int columns, int products, int count, class Epilogue, class Sum>
MOEC_DEVICE void emit_row(const Epilogue& epilogue, const typename Epilogue::Row& row, i64 line, bool store, int column,
                          int end, Sum sum) {
  using Out = typename Epilogue::Out;
  constexpr int results = Epilogue::results;
  constexpr bool quads = sizeof(Out) == 2 && count % 4 == 0 && columns % 8 == 0;
  constexpr int step = quads ? 4 : 1;
  const int inside = lane_index() & 3;
  MOEC_UNROLL
  for (int first = 0; first < count; first += step) {
    float value[step][2][results];
    MOEC_UNROLL
    for (int block = 0; block < step; block++) {
      MOEC_UNROLL
      for (int odd = 0; odd < 2; odd++) {
        float sums[products];
        MOEC_UNROLL
        for (int p = 0; p < products; p++) sums[p] = sum(p, first + block, odd);
        const int at = column + (first + block) * 8 + inside * 2 + odd;
        epilogue.value(row, at < columns ? at : columns - 1, sums, value[block][odd]);
      }
    }
    MOEC_UNROLL
    for (int n = 0; n < results; n++) {
      Out* const to = epilogue.to(n) + line * columns;
      if constexpr (quads) {
        u32 word[4];
        MOEC_UNROLL
        for (int block = 0; block < 4; block++) word[block] = pack<Out>(value[block][0][n], value[block][1][n]);
        transpose_quad(word);
        const int at = column + (first + inside) * 8;
        if (store && at < end) *(Quad*)(to + at) = {{word[0], word[1], word[2], word[3]}};
      } else {
        const int at = column + first * 8 + inside * 2;
        if (store && at < end) {
          if constexpr (columns % 2 == 0) store_pair(to + at, value[0][0][n], value[0][1][n], true);
          else {
            to[at] = from_float<Out>(value[0][0][n]);
            if (at + 1 < end) to[at + 1] = from_float<Out>(value[0][1][n]);
          }
        }
      }
    }
  }
}

}  // namespace moec
