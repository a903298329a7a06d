// Products of bf16 or f16 rows with few columns of f32 weights, on tensor cores.
#pragma once
#include "moec/factors.cuh"

namespace moec {

// A number of f32 is exactly the sum of three of bf16: its bits are cut in three, but for those below 2^-133, where
// bf16 ends.
struct Parts {
  u32 bits[3];  // in the upper halves
};
MOEC_DEVICE Parts cut(float value) {
  const u32 high = bits_of(value) & 0xffff0000u;
  const float rest = value == float_of(high) ? 0.0f : value - float_of(high);  // of an infinity, too
  const u32 middle = bits_of(rest) & 0xffff0000u;
  return {{high, middle, bits_of(rest - float_of(middle)) & 0xffff0000u}};
}

// Eight warps have `rows` rows (a multiple of 32) of all columns, each 32 rows of some columns.
template <int rows_, int columns_, int inner_, class T = bf16>
struct LogitTile {
  using type = T;
  static constexpr int rows = rows_;
  static constexpr int columns = columns_;
  static constexpr int inner = inner_;
  static constexpr int threads = 256;
  static constexpr int down = rows / 32;      // warps below each other
  static constexpr int across = 8 / down;     // warps beside each other
  static constexpr int padded = (columns + 16 * across - 1) / (16 * across) * 16 * across;
  static constexpr int width = padded / across;
  static constexpr int depth = 32;            // columns of x that are worked on at a time
  static constexpr int line = depth * 2 + 16; // bytes; eight lines lie in different banks
  static constexpr int x_bytes = rows * line;
  static constexpr int part_bytes = padded * line;
  static constexpr int stage_bytes = x_bytes + 3 * part_bytes;
  static constexpr int pitch = padded + 4;
  static constexpr int result_bytes = rows * pitch * 4;
  static constexpr int shared_bytes = 2 * stage_bytes > result_bytes ? 2 * stage_bytes : result_bytes;
  static constexpr int steps = (inner + depth - 1) / depth;
  static constexpr int quads = (padded * depth / 4 + threads - 1) / threads;
};

// Starts copying columns step * depth.. of rows first..last of x; what there is not is 0.
template <class L>
MOEC_DEVICE void copy_rows(const typename L::type* x, int first, int last, int step, u8* to) {
  constexpr int chunks = L::depth / 8;
  for (int i = thread_index(); i < L::rows * chunks; i += L::threads) {
    const int row = first + i / chunks;
    const int column = step * L::depth + i % chunks * 8;
    const bool real = row < last && column < L::inner;
    const typename L::type* from = real ? x + (i64)row * L::inner + column : x;
    copy_async(to + i / chunks * L::line + i % chunks * 16, from, real ? 16 : 0);
  }
  copies_commit();
}

template <class L>
MOEC_DEVICE void load_weights(const float* weights, int step, Quad (&held)[L::quads]) {
  MOEC_UNROLL
  for (int n = 0; n < L::quads; ++n) {
    const int i = thread_index() + n * L::threads;
    const int row = i / (L::depth / 4);
    const int column = step * L::depth + i % (L::depth / 4) * 4;
    if (row < L::columns && column < L::inner) {
      held[n] = *(const Quad*)(weights + (i64)row * L::inner + column);
    } else {
      held[n] = {{0, 0, 0, 0}};
    }
  }
}

template <class L>
MOEC_DEVICE void store_parts(const Quad (&held)[L::quads], u8* to) {
  MOEC_UNROLL
  for (int n = 0; n < L::quads; ++n) {
    const int i = thread_index() + n * L::threads;
    if (i >= L::padded * L::depth / 4) continue;
    u8* at = to + i / (L::depth / 4) * L::line + i % (L::depth / 4) * 8;
    Parts parts[4];
    MOEC_UNROLL
    for (int w = 0; w < 4; ++w) parts[w] = cut(float_of(held[n].word[w]));
    MOEC_UNROLL
    for (int p = 0; p < 3; ++p) {
      const Shared<u32> words = shared_array<u32>(at + p * L::part_bytes);
      words[0] = parts[0].bits[p] >> 16 | parts[1].bits[p];
      words[1] = parts[2].bits[p] >> 16 | parts[3].bits[p];
    }
  }
}

// logits[row][column] (Shared<float>, lines of L::pitch) of rows first..last of x, [.., inner], in `shared`.
// Begins and ends in a barrier.
template <class L>
MOEC_DEVICE Shared<float> multiply_logits(const typename L::type* x, const float* weights, int first, int last,
                                          u8* shared) {
  constexpr int factors = factors_of<typename L::type>;
  const int lane = lane_index();
  const int row = warp_index() / L::across * 32;
  const int column = warp_index() % L::across * L::width;
  float sums[2][L::width / 8][4] = {};
  Quad held[L::quads];
  sync_block();
  copy_rows<L>(x, first, last, 0, shared);
  load_weights<L>(weights, 0, held);
  store_parts<L>(held, shared + L::x_bytes);
  for (int step = 0; step < L::steps; ++step) {
    u8* now = shared + step % 2 * L::stage_bytes;
    u8* then = shared + (step + 1) % 2 * L::stage_bytes;
    copies_wait<0>();
    sync_block();
    const bool more = step + 1 < L::steps;
    if (more) {
      copy_rows<L>(x, first, last, step + 1, then);
      load_weights<L>(weights, step + 1, held);
    }
    MOEC_UNROLL
    for (int k = 0; k < L::depth; k += 16) {
      u32 a[2][factors][4];
      MOEC_UNROLL
      for (int m = 0; m < 2; ++m) {
        load_matrices(a[m][0], now + (row + m * 16 + lane % 16) * L::line + (k + lane / 16 * 8) * 2);
        cut_rows<typename L::type>(a[m]);
      }
      MOEC_UNROLL
      for (int n = 0; n < L::width; n += 16) {
        MOEC_UNROLL
        for (int p = 2; p >= 0; --p) {  // small parts first
          u32 b[4];
          load_matrices(b, now + L::x_bytes + p * L::part_bytes +
                               (column + n + lane % 8 + lane / 16 * 8) * L::line + (k + lane / 8 % 2 * 8) * 2);
          MOEC_UNROLL
          for (int f = factors - 1; f >= 0; --f) {
            MOEC_UNROLL
            for (int m = 0; m < 2; ++m) {
              multiply<bf16>(sums[m][n / 8], a[m][f], b[0], b[1]);
              multiply<bf16>(sums[m][n / 8 + 1], a[m][f], b[2], b[3]);
            }
          }
        }
      }
    }
    if (more) store_parts<L>(held, then + L::x_bytes);
  }
  sync_block();
  const Shared<float> logits = shared_array<float>(shared);
  MOEC_UNROLL
  for (int m = 0; m < 2; ++m) {
    MOEC_UNROLL
    for (int n = 0; n < L::width / 8; ++n) {
      MOEC_UNROLL
      for (int i = 0; i < 4; ++i)
        logits[(row + m * 16 + lane / 4 + i / 2 * 8) * L::pitch + column + n * 8 + lane % 4 * 2 + i % 2] =
            sums[m][n][i];
    }
  }
  sync_block();
  return logits;
}

}  // namespace moec
