// A product of few rows whose inner dimension is shared out to several blocks: each stores its sums, and a second kernel
// adds them up in ascending order of the inner dimension.  Nothing depends on which block ends first.
#pragma once
#include "moec/matmul/work.cuh"
#include "moec/scalar.cuh"

namespace moec {

// An epilogue that keeps sums as they are: float [splits, products, rows, columns].
template <int products, int rows, int columns>
struct PartialSums {
  using Out = float;
  static constexpr int results = products;
  struct Row {};
  float* out;

  MOEC_DEVICE PartialSums of(int split) const { return {out + (i64)split * products * rows * columns}; }
  MOEC_DEVICE Row row(int, int, int) const { return {}; }
  MOEC_DEVICE void value(const Row&, int, const float (&sums)[products], float (&to)[products]) const {
    MOEC_UNROLL
    for (int p = 0; p < products; p++) to[p] = sums[p];
  }
  MOEC_DEVICE float* to(int n) const { return out + (i64)n * rows * columns; }
};

// How many rows a product has, and the expert of one of them; all lanes of a warp ask for the same row.
template <class P>
MOEC_DEVICE int rows_of(const P& plan) {
  if constexpr (P::experts == 0) return plan.tokens;
  else return plan.offsets[P::experts];
}
template <class P>
MOEC_DEVICE int expert_of(const P& plan, int row) {
  if constexpr (P::experts == 0) return 0;
  int before = 0;
  for (int expert = lane_index(); expert < P::experts; expert += 32) before += plan.offsets[expert + 1] <= row;
  MOEC_UNROLL
  for (int mask = 16; mask > 0; mask /= 2) before += shuffle_xor(before, mask);
  return before;
}

// The whole second kernel: a warp has 32 columns of a row at a time.
template <int products, int splits, int rows, int columns, class P, class Epilogue>
MOEC_DEVICE void add_partial_sums(const float* partial, const P& plan, const Epilogue& epilogue) {
  constexpr int across = (columns + 31) / 32;
  const int warps = block_threads() / 32, count = rows_of(plan) * across;
  for (int number = block_index() * warps + warp_index(); number < count; number += grid_blocks() * warps) {
    const int line = number / across, column = number % across * 32 + lane_index();
    const int expert = expert_of(plan, line);
    if (column >= columns) continue;
    float sums[products], out[Epilogue::results];
    MOEC_UNROLL
    for (int p = 0; p < products; p++) {
      float term[splits];
      MOEC_UNROLL
      for (int split = 0; split < splits; split++)
        term[split] = partial[((i64)(split * products + p) * rows + line) * columns + column];
      sums[p] = term[0];
      MOEC_UNROLL
      for (int split = 1; split < splits; split++) sums[p] += term[split];
    }
    epilogue.value(epilogue.row(line, expert, plan.slot(line)), column, sums, out);
    MOEC_UNROLL
    for (int n = 0; n < Epilogue::results; n++) store(epilogue.to(n) + (i64)line * columns + column, out[n]);
  }
}

}  // namespace moec
