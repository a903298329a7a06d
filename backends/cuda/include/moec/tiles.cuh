// The rows of experts, cut into tiles that a grouped matmul works on one at a time.
#pragma once
#include "moec/primitives.cuh"

namespace moec {

// Rows first..first + count of the plan, all of one expert.
struct Tile {
  int expert;
  int first;
  int count;
};

// One warp writes ends[e], the number of tiles of the experts 0..e; a barrier must follow before anybody reads them.
// plan: says where the rows of an expert begin and end.  Each tile has `rows` rows, the last of an expert what is left.
template <class P>
MOEC_DEVICE void count_tiles(const P& plan, int experts, int rows, Shared<int> ends) {
  const int lane = lane_index();
  int before = 0;
  for (int first = 0; first < experts; first += 32) {
    const int expert = first + lane;
    int tiles = expert < experts ? (plan.end(expert) - plan.begin(expert) + rows - 1) / rows : 0;
    for (int step = 1; step < 32; step *= 2) {
      const int below = shuffle_up(tiles, step);
      if (lane >= step) tiles += below;
    }
    if (expert < experts) ends[expert] = before + tiles;
    before += shuffle(tiles, 31);
  }
}

// Tile `number`, 0 <= number < ends[experts - 1].
template <class P>
MOEC_DEVICE Tile find_tile(Shared<int> ends, const P& plan, int experts, int rows, int number) {
  int low = 0;
  int high = experts - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (ends[middle] > number) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  const int before = low > 0 ? (int)ends[low - 1] : 0;
  const int first = plan.begin(low) + (number - before) * rows;
  const int left = plan.end(low) - first;
  return {low, first, left < rows ? left : rows};
}

}  // namespace moec
