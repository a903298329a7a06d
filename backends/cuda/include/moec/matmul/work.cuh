// The work of a grouped matmul: blocks of rows of one expert times blocks of columns, which thread blocks share out.
#pragma once
#include "moec/tiles.cuh"

namespace moec {

// Rows first..first + count, all of one expert, and columns from `column` on, of each weight.
struct Part {
  int expert;
  int first;
  int count;
  int column;
};

// Which of a plan's experts a product has: all of them, or those that a struct like this one numbers.
struct AllExperts {
  MOEC_DEVICE static int number(int expert) { return expert; }
};

// Which blocks of a launch share out the work of a product: all of them, or one of `shares` parts of the grid.
struct WholeGrid {
  MOEC_DEVICE static int index() { return block_index(); }
  MOEC_DEVICE static int count() { return grid_blocks(); }
};
template <int share, int shares>
struct GridShare {
  MOEC_DEVICE static int count() { return grid_blocks() / shares; }
  MOEC_DEVICE static int index() { return block_index() - share * count(); }
};

// The rows of `experts` experts; 0: no plan, the rows are the tokens, and all of them belong to expert 0.
// With `gathered`, row r of the product reads row slots[r] / slots_per_token of its operand, else row r.
template <int experts_, int slots_per_token_, bool gathered_, class Experts = AllExperts, class Blocks_ = WholeGrid>
struct Plan {
  using Blocks = Blocks_;
  static constexpr int experts = experts_;
  static constexpr int slots_per_token = slots_per_token_;
  static constexpr bool gathered = gathered_;
  const int* offsets;
  const int* slots;
  int tokens;

  // The rows of an expert: from `begin` to before `end`.
  MOEC_DEVICE int begin(int expert) const { return offsets[Experts::number(expert)]; }
  MOEC_DEVICE int end(int expert) const { return offsets[Experts::number(expert) + 1]; }
  MOEC_DEVICE int slot(int row) const {
    if constexpr (experts == 0) return row;
    else return slots[row];
  }
  MOEC_DEVICE int source(int row) const {
    if constexpr (gathered) return slots[row] / slots_per_token;
    else return row;
  }
};

// Of `count` pointers that registers hold.
template <int count, class T>
MOEC_DEVICE const T* chosen(const T* const* pointers, int number) {
  const T* found = pointers[0];
  MOEC_UNROLL
  for (int i = 1; i < count; i++)
    if (i == number) found = pointers[i];
  return found;
}

// Elements in 16 bytes, and in lines of rows: as many as fill 16 bytes, those behind `inner` are zeros.
template <class T>
inline constexpr int in_unit = 16 / (int)sizeof(T);
template <class T>
MOEC_DEVICE constexpr int pitch_of_rows(int inner) {
  return (inner + in_unit<T> - 1) / in_unit<T> * in_unit<T>;
}

// Starts to copy 16 bytes from element `at` on of row `row` of [rows, columns]; zeros where `row` is negative.
template <int columns, class T>
MOEC_DEVICE void bring_unit(u8* to, const T* from, int row, int at) {
  copy_async(to, from + (row >= 0 ? (i64)row * columns + at : 0), row >= 0 ? 16 : 0);
}

// Parts of `rows` rows by `width` of `columns` columns.  Blocks of rows are taken together by eights, and then one
// block of columns after the other: what runs at a time shares both rows and weights, and finds them in the L2 cache.
template <class P, int rows, int columns, int width>
struct Work {
  static constexpr int together = 8;
  static constexpr int blocks = (columns + width - 1) / width;
  static constexpr int shared_ints = P::experts;
  P plan;
  Shared<int> ends;

  // One warp counts; a barrier of the block must follow.
  MOEC_DEVICE void count() const {
    if constexpr (P::experts != 0) count_tiles(plan, P::experts, rows, ends);
  }
  // A block works on the parts first(), first() + step(), ...
  MOEC_DEVICE int first() const { return P::Blocks::index(); }
  MOEC_DEVICE int step() const { return P::Blocks::count(); }
  MOEC_DEVICE int parts() const {
    if constexpr (P::experts != 0) return (int)ends[P::experts - 1] * blocks;
    else return (plan.tokens + rows - 1) / rows * blocks;
  }
  MOEC_DEVICE Part part(int number) const {
    int expert = 0, before = 0, end, begin, stop;
    if constexpr (P::experts != 0) {
      const Tile tile = find_tile(ends, plan, P::experts, rows, number / blocks);
      expert = tile.expert;
      before = expert > 0 ? (int)ends[expert - 1] : 0;
      end = ends[expert];
      begin = plan.begin(expert);
      stop = plan.end(expert);
    } else {
      end = (plan.tokens + rows - 1) / rows;
      begin = 0;
      stop = plan.tokens;
    }
    const int within = number - before * blocks;
    const int group = within / (together * blocks);
    const int left = end - before - group * together;
    const int size = left < together ? left : together;
    const int place = within - group * together * blocks;
    const int first = begin + (group * together + place % size) * rows;
    return {expert, first, stop - first < rows ? stop - first : rows, place / size * width};
  }
};

}  // namespace moec
