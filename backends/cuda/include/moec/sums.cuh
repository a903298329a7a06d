// Numbers between the order of slots and that of a plan's rows, and sums over the rows of experts.
#pragma once
#include "moec/scalar.cuh"

namespace moec {

// out[t, j] of the slot's row, which places[t, j] tells; 0 at an empty slot.  One thread a slot.
template <class T>
MOEC_DEVICE void values_by_slot(const T* rows, const int* places, T* out, int slots) {
  const i64 slot = (i64)block_index() * block_threads() + thread_index();
  if (slot >= slots) return;
  const int place = places[slot];
  store(out + slot, place >= 0 ? load(rows + place) : 0.0f);
}

// out[r] of the row's slot.
template <class T>
MOEC_DEVICE void values_by_row(const T* values, const int* places, T* out, int slots) {
  const i64 slot = (i64)block_index() * block_threads() + thread_index();
  if (slot >= slots) return;
  const int place = places[slot];
  if (place >= 0) out[place] = values[slot];
}

// out[column] = the sum over rows first..last of weight(row) * a[line(row), column], a block for 32 columns from
// `column` on: a warp adds up every 32nd row in ascending order, and the first warp what all have.
template <class A, class O, int columns, class L, class W>
MOEC_DEVICE void sum_rows(const A* a, O* out, int first, int last, int column, L line, W weight, u8* shared) {
  const Shared<float> parts = shared_array<float>(shared);
  const int mine = column + lane_index();
  float sum = 0.0f;
  if (mine < columns) {
    for (int row = first + warp_index(); row < last; row += 32)
      sum += weight(row) * load(a + (i64)line(row) * columns + mine);
  }
  parts[thread_index()] = sum;
  sync_block();
  if (warp_index() != 0) return;
  for (int warp = 1; warp < 32; ++warp) sum += parts[warp * 32 + lane_index()];
  if (mine < columns) store(out + mine, sum);
}

}  // namespace moec
