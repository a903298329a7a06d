// The sum of each token's rows, in ascending order of the rows, that is of the experts.
#pragma once
#include "moec/vectors.cuh"

namespace moec {

// rows: R [.., columns] in plan order.  places: int [tokens * per_token], the row of each slot, -1: none.
// `lanes` threads (a multiple of 32) have a token, a block has `group` of them; `shared` holds per_token ints for each.
// out[token, column] = finish(token, column, sum), where a sum starts from 0.
template <class R, class O, int columns, int per_token, int lanes, int group, class F>
MOEC_DEVICE void combine(const R* rows, const int* places, O* out, int tokens, F finish, u8* shared) {
  constexpr int width = Together<R, O, columns>::count;
  constexpr int ahead = per_token < 8 ? per_token : 8;
  const int lane = thread_index() % lanes;
  const int token = block_index() * group + thread_index() / lanes;
  const Shared<int> sorted = shared_array<int>(shared) + thread_index() / lanes * per_token;
  const int* mine = places + (i64)token * per_token;
  if (token < tokens) {
    for (int j = lane; j < per_token; j += lanes) {
      // empty slots count as larger than any row, and stay in their order
      const u32 place = (u32)mine[j];
      int rank = 0;
      for (int i = 0; i < per_token; ++i) {
        const u32 other = (u32)mine[i];
        rank += other < place || (other == place && i < j);
      }
      sorted[rank] = (int)place;
    }
  }
  sync_block();
  if (token >= tokens) return;
  for (int column = lane * width; column < columns; column += lanes * width) {
    float sum[width] = {};
    for (int first = 0; first < per_token; first += ahead) {
      float terms[ahead][width];
      MOEC_UNROLL
      for (int i = 0; i < ahead; ++i) {
        const int place = first + i < per_token ? (int)sorted[first + i] : -1;
        if (place >= 0) {
          load_vector(rows + (i64)place * columns + column, terms[i]);
        } else {
          MOEC_UNROLL
          for (int n = 0; n < width; ++n) terms[i][n] = 0.0f;
        }
      }
      MOEC_UNROLL
      for (int i = 0; i < ahead; ++i) {
        MOEC_UNROLL
        for (int n = 0; n < width; ++n) sum[n] += terms[i][n];
      }
    }
    MOEC_UNROLL
    for (int n = 0; n < width; ++n) sum[n] = finish(token, column + n, sum[n]);
    store_vector(out + (i64)token * columns + column, sum);
  }
}

}  // namespace moec
