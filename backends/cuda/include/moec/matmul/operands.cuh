// Rows that are added up per expert, and the operands whose rows they are.
#pragma once
#include "moec/matmul/work.cuh"

namespace moec {

// The rows of each expert; experts 0: all tokens, as those of expert 0.
template <int experts>
struct ExpertRows {
  static constexpr int count = experts ? experts : 1;
  const int* offsets;
  int tokens;

  MOEC_DEVICE Part part(int expert) const {
    if constexpr (experts == 0) return {0, 0, tokens, 0};
    else return {expert, offsets[expert], offsets[expert + 1] - offsets[expert], 0};
  }
};

// A tensor of rows; with per_token > 0, row r of the plan is row slots[r] / per_token of it.
template <class T_, int columns_, int per_token>
struct RowOperand {
  using T = T_;
  static constexpr int columns = columns_;
  const T* data;
  const int* slots;

  MOEC_DEVICE int source(int row) const {
    if constexpr (per_token == 0) return row;
    else return slots[row] / per_token;
  }
};

// An epilogue that stores sums as they are.
template <class Out_>
struct Sum {
  using Out = Out_;
  static constexpr int results = 1;
  struct Row {};
  Out* out;
  MOEC_DEVICE void value(const Row&, int, const float (&sums)[1], float (&to)[1]) const { to[0] = sums[0]; }
  MOEC_DEVICE Out* to(int) const { return out; }
};

}  // namespace moec
