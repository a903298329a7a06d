// A grouped matmul of warpgroups (sm_90a) with weights that are codes: the transposed product, whose first operand is
// decoded in registers.
//
// Three warpgroups: the first brings rows and codes into a ring of stages by cp.async; the others have 64 columns of each
// weight and multiply them by all rows of the part.  A thread holds the sums of the same element of all weights.
#pragma once
#include "moec/matmul/ring.cuh"
#include "moec/matmul/whole_codes.cuh"

namespace moec {

// A stage has rows, codes, and the scales of groups of `group` inputs in rows for `chunk` inputs (group 0: scales are
// those of channels).  With T i8 products are those of whole numbers, and groups multiples of 128.
template <class T_, class Code, class Scale, int group_, int inner_, int columns_, int products_, int rows_, int stages_>
struct CodedWarpgroupTile {
  using T = T_;
  using Weight = Coded<Code, Scale>;
  static constexpr int inner = inner_, columns = columns_, products = products_, rows = rows_, stages = stages_;
  static constexpr int width = 128, depth = 128 / (int)sizeof(T), steps = (inner + depth - 1) / depth;
  static constexpr int threads = 128;  // that copy
  static constexpr bool grouped = group_ != 0, whole = sizeof(T) == 1;
  using Sum = Chosen<whole, int, float>;  // that wgmma makes
  static constexpr int group = grouped ? group_ : inner, groups = inner / group;
  static constexpr int chunk = group % depth == 0 ? depth : group % 64 == 0 ? 64 : 32;
  static constexpr int scale_rows = grouped ? depth / chunk : 0;
  static constexpr int units = Weight::units * depth / 64;
  static constexpr int lhs_bytes = rows * 128, code_bytes = width * units * 16;
  static constexpr int scale_bytes = scale_rows * width * (int)sizeof(Scale);
  static constexpr int stage_bytes = (lhs_bytes + products * (code_bytes + scale_bytes) + 1023) / 1024 * 1024;
  static_assert(inner % (Weight::packed ? 8 : 16) == 0 && rows % 16 == 0);
  static_assert(rows * products <= (grouped ? 128 : 256));
  static_assert(!grouped || (group % (whole ? 128 : 32) == 0 && inner % group == 0));
};

// The column, of 16, that a warp of a warpgroup has at place `line` of 16: results are stored by lanes that have what was
// at places 2 c, 2 c + 1, 8 + 2 c and 9 + 2 c, and these are neighbours.
MOEC_DEVICE int column_at(int line) {
  return (line & ~15) | (line & 6) << 1 | (line >> 2 & 2) | (line & 1);
}

// Starts copying the codes of a stage; 128 threads share them.  Lines lie in the order of `column_at`.
template <class Tile>
MOEC_DEVICE void bring_codes(u8* to, const typename Tile::Weight* weights, const Part& part, int step) {
  using Weight = typename Tile::Weight;
  constexpr int units = Tile::units, lines = 128 / units, pitch = Weight::template pitch<Tile::inner>();
  const int unit = thread_index() % units, at = step * units * 16 + unit * 16;
  MOEC_UNROLL
  for (int p = 0; p < Tile::products; p++) {
    MOEC_UNROLL
    for (int i = 0; i < Tile::width / lines; i++) {
      const int line = thread_index() / units + i * lines, column = part.column + column_at(line);
      const bool real = column < Tile::columns && at < pitch;
      const i64 from = ((i64)part.expert * Tile::columns + column) * pitch + at;
      copy_async(to + p * Tile::code_bytes + place_of_codes<units>(line, unit), weights[p].codes + (real ? from : 0),
                 real ? 16 : 0);
    }
  }
}

// Brings the stages of all parts of this block.  128 threads.
template <class Tile, class W>
MOEC_DEVICE void bring_coded_parts(const W& work, const typename Tile::T* lhs, const typename Tile::Weight* weights,
                                   Ring<Tile> ring) {
  const int parts = work.parts();
  for (int number = work.first(); number < parts; number += work.step()) {
    const Part part = work.part(number);
    const GatheredRows<Tile> rows(work.plan, part);
    for (int k = 0; k < Tile::steps; k++) {
      u8* const stage = ring.to_fill();
      rows.bring(stage, lhs, k * Tile::depth);
      bring_codes<Tile>(stage + Tile::lhs_bytes, weights, part, k);
      if constexpr (Tile::grouped)
        copy_scales<Tile>(stage + Tile::lhs_bytes + Tile::products * Tile::code_bytes, weights, part, k);
      ring.started();
    }
  }
  ring.all_started();
}

// The 64 lines of a warpgroup, `chunk` of a stage, as this thread's part of two operands of products.
template <class Tile>
MOEC_DEVICE void decode_lines(const u8* lines, int chunk, u32 (&to)[2][4]) {
  using Code = typename Tile::Weight::Code;
  constexpr int units = Tile::Weight::units;
  const int place = thread_index() / 32 % 4 * 16 + (lane_index() >> 2), pair = lane_index() & 3;
  MOEC_UNROLL
  for (int half = 0; half < 2; half++) {
    const int line = place + half * 8;
    if constexpr (Tile::Weight::packed) {
      constexpr int halves = 2 / units;  // of a stage, whose codes a word has
      constexpr u32 mask = ((1u << Code::bits) - 1) * 0x10001u;
      const Quad four = load_shared(lines + place_of_codes<units>(line, chunk / halves));
      const int shift = Code::bits * (pair + chunk % halves * 4);
      MOEC_UNROLL
      for (int i = 0; i < 4; i++)
        to[i / 2][i % 2 * 2 + half] = small_numbers<typename Tile::T>(four.word[i] >> shift, mask, Code::bias);
    } else {
      MOEC_UNROLL
      for (int n = 0; n < 2; n++) {
        const Shared<u16> at =
            shared_array<u16>((void*)(lines + place_of_codes<units>(line, chunk * 2 + n) + pair * 2));
        const u32 low = at[0], high = at[4];
        u32 two[2];
        decode<typename Tile::T, Code>(low | high << 16, two);
        to[n][half] = two[0];
        to[n][2 + half] = two[1];
      }
    }
  }
}

// A sum as a float; with scales of groups wgmma's sums have become others.
template <class Tile>
using MadeSum = Chosen<Tile::grouped, float, typename Tile::Sum>;

// Results of this warp's 16 columns and all rows of a part.
template <class Tile, class P, class Epilogue>
MOEC_DEVICE void emit_columns(const Epilogue& epilogue, const P& plan, const typename Tile::Weight* weights,
                              const Part& part, int group,
                              const MadeSum<Tile> (&sums)[Tile::products][Tile::rows / 2]) {
  using Out = typename Epilogue::Out;
  constexpr int results = Epilogue::results;
  const int lane = lane_index(), line = lane >> 2, inside = lane & 3;
  const int first = part.column + group * 64 + thread_index() / 32 % 4 * 16;
  float scale[Tile::products][2];  // of channels
  int column[2];
  MOEC_UNROLL
  for (int half = 0; half < 2; half++) {
    const int at = first + column_at(line + half * 8);
    column[half] = at < Tile::columns ? at : Tile::columns - 1;
    MOEC_UNROLL
    for (int p = 0; p < Tile::products; p++)
      scale[p][half] = Tile::grouped ? 1.0f : load(weights[p].scales + (i64)part.expert * Tile::columns + column[half]);
  }
  MOEC_UNROLL
  for (int block = 0; block < Tile::rows / 8; block++) {
    if (block * 8 >= part.count) continue;
    float value[2][2][results];
    MOEC_UNROLL
    for (int odd = 0; odd < 2; odd++) {
      const int row = block * 8 + inside * 2 + odd;
      const int at = part.first + (row < part.count ? row : 0);
      const typename Epilogue::Row given = epilogue.row(at, part.expert, plan.slot(at));
      MOEC_UNROLL
      for (int half = 0; half < 2; half++) {
        float scaled[Tile::products];
        MOEC_UNROLL
        for (int p = 0; p < Tile::products; p++) {
          const float sum = number_of<Tile>(sums[p][block * 4 + half * 2 + odd]);
          scaled[p] = Tile::grouped ? sum : sum * scale[p][half];
        }
        epilogue.value(given, column[half], scaled, value[half][odd]);
      }
    }
    MOEC_UNROLL
    for (int n = 0; n < results; n++) {
      if constexpr (sizeof(Out) == 2) {
        u32 word[2];
        MOEC_UNROLL
        for (int half = 0; half < 2; half++)
          word[half] = transpose_matrix(pack<Out>(value[half][0][n], value[half][1][n]));
        const int row = block * 8 + line, at = first + inside * 4;
        Out* const to = epilogue.to(n) + (i64)(part.first + row) * Tile::columns + at;
        if constexpr (Tile::columns % 4 == 0) {
          if (row < part.count && at < Tile::columns) *(u64*)to = word[0] | (u64)word[1] << 32;
        } else {
          MOEC_UNROLL
          for (int i = 0; i < 4; i++)
            if (row < part.count && at + i < Tile::columns) to[i] = Out{(u16)(word[i / 2] >> i % 2 * 16)};
        }
      } else {
        MOEC_UNROLL
        for (int i = 0; i < 4; i++) {
          const int row = block * 8 + inside * 2 + i % 2, at = first + column_at(line + i / 2 * 8);
          if (row < part.count && at < Tile::columns)
            store(epilogue.to(n) + (i64)(part.first + row) * Tile::columns + at, value[i / 2][i % 2][n]);
        }
      }
    }
  }
}

// The scales of this thread's two columns, of row `row` of a stage.
template <class Tile>
MOEC_DEVICE void load_column_scales(const u8* stage, int group, int row, float (&to)[Tile::products][2]) {
  using Scale = typename Tile::Weight::Scale;
  const int first = group * 64 + thread_index() / 32 % 4 * 16;
  MOEC_UNROLL
  for (int p = 0; p < Tile::products; p++) {
    MOEC_UNROLL
    for (int half = 0; half < 2; half++) {
      const int place = (p * Tile::scale_rows + row) * Tile::width + first + column_at((lane_index() >> 2) + half * 8);
      const u8* const at = stage + Tile::lhs_bytes + Tile::products * Tile::code_bytes + place * sizeof(Scale);
      if constexpr (sizeof(Scale) == 4) to[p][half] = shared_array<float>((void*)at)[0];
      else to[p][half] = to_float(Scale{(u16)shared_array<u16>((void*)at)[0]});
    }
  }
}

template <class Tile, class Sum>
using ColumnSums = Sum[Tile::products][Tile::rows / 2];

// Sums of codes of some inputs, times their scales, become sums of weights.
template <class Tile>
MOEC_DEVICE void add_scaled(const ColumnSums<Tile, typename Tile::Sum>& some, const float (&scale)[Tile::products][2],
                            ColumnSums<Tile, float>& sums) {
  MOEC_UNROLL
  for (int p = 0; p < Tile::products; p++) {
    MOEC_UNROLL
    for (int n = 0; n < Tile::rows / 2; n++) sums[p][n] = fmaf((float)some[p][n], scale[p][n / 2 % 2], sums[p][n]);
  }
}

// The products of warpgroup `group` of two, and what becomes of them.
template <class Tile, class W, class Epilogue>
MOEC_DEVICE void multiply_coded_parts(const W& work, int group, const typename Tile::Weight* weights,
                                      const Epilogue& epilogue, Ring<Tile> ring) {
  const int parts = work.parts();
  ColumnSums<Tile, MadeSum<Tile>> sums;
  // While wgmma works on half a stage, 64 bytes along k of rows, the other half's codes are decoded.
  u32 matrices[2][Tile::products * 2][4];
  for (int number = work.first(); number < parts; number += work.step()) {
    const Part part = work.part(number);
    // With scales of groups: what is being made, and the scales of that.
    [[maybe_unused]] ColumnSums<Tile, typename Tile::Sum> some;
    [[maybe_unused]] float scale[Tile::products][2];
    if constexpr (Tile::grouped) {
      MOEC_UNROLL
      for (int n = 0; n < Tile::products * Tile::rows / 2; n++) sums[n / (Tile::rows / 2)][n % (Tile::rows / 2)] = 0.0f;
    }
    for (int k = 0; k < Tile::steps; k++) {
      const u8* const stage = ring.to_multiply();
      const u8* const lines = stage + Tile::lhs_bytes + group * (Tile::code_bytes / 2);
      MOEC_UNROLL
      for (int half = 0; half < 2; half++) {
        const bool fresh = Tile::grouped && half % (Tile::chunk * 2 / Tile::depth) == 0;
        MOEC_UNROLL
        for (int p = 0; p < Tile::products; p++) {
          u32 two[2][4];
          if constexpr (Tile::whole) widen_lines<Tile>(lines + p * Tile::code_bytes, half, two);
          else decode_lines<Tile>(lines + p * Tile::code_bytes, half, two);
          MOEC_UNROLL
          for (int i = 0; i < 8; i++) matrices[half][p * 2 + i / 4][i % 4] = two[i / 4][i % 4];
        }
        if constexpr (Tile::grouped) {
          if (fresh && (half > 0 || k > 0)) {
            wgmma_wait<0>(some);
            add_scaled<Tile>(some, scale, sums);
          }
          if (fresh) load_column_scales<Tile>(stage, group, half, scale);
        }
        wgmma_fence(matrices[half]);
        MOEC_UNROLL
        for (int n = 0; n < 2; n++) {
          const u64 rows = matrix_descriptor(stage + (half * 2 + n) * 32, 16, 1024);
          MOEC_UNROLL
          for (int p = 0; p < Tile::products; p++) {
            const u32(&matrix)[4] = matrices[half][p * 2 + n];
            if constexpr (Tile::grouped)
              wgmma_from_registers<typename Tile::T, Tile::rows>(some[p], matrix, rows, !fresh || n != 0);
            else
              wgmma_from_registers<typename Tile::T, Tile::rows>(sums[p], matrix, rows, (k | half | n) != 0);
          }
        }
        wgmma_commit();
        // The other half's matrices are decoded next: wgmma must have read them.
        if constexpr (!Tile::grouped) wgmma_wait<1>(sums);
        else if (!fresh) wgmma_wait<1>(some);
        if (half == 0 && k > 0) {
          sync_warp();
          ring.left(1);
        }
      }
    }
    if constexpr (Tile::grouped) {
      wgmma_wait<0>(some);
      add_scaled<Tile>(some, scale, sums);
    } else {
      wgmma_wait<0>(sums);
    }
    sync_warp();
    ring.left(0);
    emit_columns<Tile>(epilogue, work.plan, weights, part, group, sums);
  }
}

// The whole kernel: 384 threads, stages * (stage_bytes + 16) + 4 * experts bytes of shared memory.
template <class Tile, class P, class Epilogue>
MOEC_DEVICE void multiply_codes_by_warpgroups(u8* shared, const typename Tile::T* lhs, const P& plan,
                                              const typename Tile::Weight (&weights)[Tile::products],
                                              const Epilogue& epilogue) {
  const Ring<Tile> ring(shared);
  const Work<P, Tile::rows, Tile::columns, Tile::width> work{plan, shared_array<int>(ring.end())};
  const int thread = thread_index();
  if (thread == 0) {
    ring.prepare(0);
  }
  if (warp_index() == 1) work.count();
  sync_block();
  if (thread < 128) {
    lower_registers<88>();
    bring_coded_parts<Tile>(work, lhs, weights, ring);
  } else {
    raise_registers<208>();
    multiply_coded_parts<Tile>(work, thread / 128 - 1, weights, epilogue, ring);
  }
}

}  // namespace moec
