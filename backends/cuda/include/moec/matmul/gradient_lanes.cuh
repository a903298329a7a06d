// Gradients of weights in f32, for any types and sizes: 64 by 64 elements of one expert a block, 256 threads.
#pragma once
#include "moec/matmul/operands.cuh"
#include "moec/scalar.cuh"

namespace moec {

constexpr int GRADIENT_DEPTH = 16, GRADIENT_LINE = 64, GRADIENT_FLOATS = 2 * GRADIENT_DEPTH * GRADIENT_LINE;

template <class O>
MOEC_DEVICE void load_gradient_operand(const O& operand, const Part& part, int row, int column, float (&to)[4]) {
  const int at = column + thread_index() % 64;
  MOEC_UNROLL
  for (int i = 0; i < 4; i++) {
    const int of = row + thread_index() / 64 + i * 4;
    to[i] = of < part.count && at < O::columns
                ? to_float(operand.data[(i64)operand.source(part.first + of) * O::columns + at])
                : 0.0f;
  }
}

MOEC_DEVICE void store_gradient_operand(Shared<float> shared, const float (&from)[4]) {
  MOEC_UNROLL
  for (int i = 0; i < 4; i++)
    shared[(thread_index() / 64 + i * 4) * GRADIENT_LINE + thread_index() % 64] = from[i];
}

// The whole kernel: 256 threads, 4 * GRADIENT_FLOATS bytes of shared memory.
template <class R, class A, class B, class Out>
MOEC_DEVICE void gradient_by_lanes(u8* memory, const R& rows, const A& a, const B& b, Out* out) {
  constexpr int down = (A::columns + 63) / 64, across = (B::columns + 63) / 64;
  const Shared<float> left = shared_array<float>(memory), right = left + GRADIENT_DEPTH * GRADIENT_LINE;
  const int y = thread_index() / 16, x = thread_index() % 16;
  for (int number = block_index(); number < R::count * down * across; number += grid_blocks()) {
    const Part part = rows.part(number / (down * across));
    const int n0 = number / across % down * 64, k0 = number % across * 64;
    float sums[4][4] = {}, next_a[4], next_b[4];
    load_gradient_operand(a, part, 0, n0, next_a);
    load_gradient_operand(b, part, 0, k0, next_b);
    for (int row = 0; row < part.count; row += GRADIENT_DEPTH) {
      sync_block();
      store_gradient_operand(left, next_a);
      store_gradient_operand(right, next_b);
      sync_block();
      if (row + GRADIENT_DEPTH < part.count) {
        load_gradient_operand(a, part, row + GRADIENT_DEPTH, n0, next_a);
        load_gradient_operand(b, part, row + GRADIENT_DEPTH, k0, next_b);
      }
      MOEC_UNROLL
      for (int r = 0; r < GRADIENT_DEPTH; r++) {
        float u[4], v[4];
        MOEC_UNROLL
        for (int i = 0; i < 4; i++) {
          u[i] = left[r * GRADIENT_LINE + y * 4 + i];
          v[i] = right[r * GRADIENT_LINE + x + i * 16];
        }
        MOEC_UNROLL
        for (int i = 0; i < 4; i++) {
          MOEC_UNROLL
          for (int j = 0; j < 4; j++) sums[i][j] = fmaf(u[i], v[j], sums[i][j]);
        }
      }
    }
    MOEC_UNROLL
    for (int i = 0; i < 4; i++) {
      MOEC_UNROLL
      for (int j = 0; j < 4; j++) {
        const int n = n0 + y * 4 + i, k = k0 + x + j * 16;
        if (n < A::columns && k < B::columns)
          store(out + ((i64)part.expert * A::columns + n) * B::columns + k, sums[i][j]);
      }
    }
  }
}

}  // namespace moec
