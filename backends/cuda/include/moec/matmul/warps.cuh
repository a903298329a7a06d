// A grouped matmul of warps (sm_80 and later): rows and weights come by cp.async, products are mma.sync's.
//
// Every thread brings lines of 128 bytes into a ring of stages and multiplies; a warp has rows / down rows by
// width / across columns of each weight, so that a thread holds the sums of the same element of all weights.
#pragma once
#include "moec/matmul/codes.cuh"
#include "moec/matmul/results.cuh"
#include "moec/matmul/whole_codes.cuh"

namespace moec {

// The inner dimension is `segments` pieces of `inner` elements, each with its own rows and weights.
// `transposed`: weights are [E, inner, columns] and stand in shared memory as they lie, lines along the columns.
template <class T_, int segments_, int inner_, int columns_, int products_, int rows_, int width_, int stages_,
          int down_, int across_, bool transposed_>
struct WarpTile {
  using T = T_;
  using Weight = const T*;
  using Sum = float;
  static constexpr bool coded = false, grouped = false;
  static constexpr int segments = segments_, inner = inner_, columns = columns_, products = products_, rows = rows_, width = width_;
  static constexpr int stages = stages_, down = down_, across = across_;
  static constexpr bool transposed = transposed_;
  static constexpr int depth = 128 / (int)sizeof(T), steps_each = (inner + depth - 1) / depth;
  static constexpr int steps = segments * steps_each;
  static constexpr int splits = 1, part_steps = steps;
  static constexpr int threads = 32 * down * across;
  static constexpr int lhs_bytes = rows * 128, rhs_bytes = width * products * 128, stage_bytes = lhs_bytes + rhs_bytes;
  static constexpr int high = rows / down / 16, wide = width / across / 8;  // of a warp, in products of 16 by 8
  static_assert(inner % 8 == 0 && rows % (16 * down) == 0 && width % (8 * across) == 0 && stages >= 2);
  static_assert(wide == 1 || wide % 2 == 0);
  static_assert(!transposed || (columns % 8 == 0 && width % 64 == 0 && wide % 2 == 0));
};

// The same for weights that are codes: a stage has their lines, and then the scales of groups of `group` inputs
// that belong to them, in rows for `chunk` inputs.  group 0: scales are those of channels.  With T i8 products are
// those of whole numbers.
template <class T_, class Code, class Scale, int group_, int inner_, int columns_, int products_, int rows_, int width_,
          int stages_, int down_, int across_>
struct CodedTile : WarpTile<T_, 1, inner_, columns_, products_, rows_, width_, stages_, down_, across_, false> {
  using Base = WarpTile<T_, 1, inner_, columns_, products_, rows_, width_, stages_, down_, across_, false>;
  using Weight = Coded<Code, Scale>;
  static constexpr bool coded = true, grouped = group_ != 0, whole = sizeof(T_) == 1;
  using Sum = Chosen<whole && !grouped, int, float>;
  static constexpr int group = grouped ? group_ : inner_, groups = inner_ / group;
  static constexpr int chunk = group % 64 == 0 ? 64 : 32, scale_rows = grouped ? Base::depth / chunk : 0;
  static constexpr int units = Weight::units * Base::depth / 64, code_bytes = width_ * units * 16;
  static constexpr int scale_bytes = scale_rows * width_ * (int)sizeof(Scale);
  static constexpr int rhs_bytes = products_ * (code_bytes + scale_bytes), stage_bytes = rows_ * 128 + rhs_bytes;
  static_assert(Weight::packed || inner_ % 16 == 0);
  static_assert(!grouped || (group % 32 == 0 && inner_ % group == 0 && width_ % 16 == 0));
};

// The same, whose inner dimension is shared out to `splits` blocks (moec/matmul/partial.cuh).
template <class Tile, int splits_>
struct DividedTile : Tile {
  static constexpr int splits = splits_, part_steps = Tile::steps / splits;
  static_assert(Tile::steps % splits == 0);
};

// Whether rows are read in the order of the codes that they are multiplied by.
template <class Tile>
MOEC_DEVICE constexpr bool in_order_of_codes() {
  if constexpr (Tile::coded) return !Tile::whole || Tile::Weight::packed;
  else return false;
}

// Brings one stage after the other of all parts of this block; each thread its share.
template <class Tile, class W>
struct Loader {
  using T = typename Tile::T;
  using Weight = typename Tile::Weight;
  static constexpr int lines = Tile::threads / 8;  // that the block brings at once
  static constexpr int each = (Tile::rows + lines - 1) / lines;

  const W& work;
  const T* const* lhs;
  const Weight* rhs;  // of the products, segment after segment
  int parts, number, step;
  Part part;
  int source[each];

  MOEC_DEVICE Loader(const W& work, const T* const* lhs, const Weight* rhs)
      : work(work), lhs(lhs), rhs(rhs), parts(work.parts() * Tile::splits), number(work.first()), step(0) {
    begin();
  }

  MOEC_DEVICE void begin() {
    if (number >= parts) return;
    part = work.part(number / Tile::splits);
    step = number % Tile::splits * Tile::part_steps;
    MOEC_UNROLL
    for (int i = 0; i < each; i++) {
      const int row = (thread_index() >> 3) + i * lines;
      source[i] = row < part.count ? work.plan.source(part.first + row) : -1;
    }
  }

  // Starts the copies of the next stage and ends their group, which is empty behind the last stage.
  MOEC_DEVICE void bring(u8* stage) {
    if (number < parts) {
      copy_lhs(stage);
      if constexpr (Tile::coded) copy_codes<Tile>(stage + Tile::lhs_bytes, rhs, part, step);
      else copy_rhs(stage + Tile::lhs_bytes);
      if constexpr (Tile::grouped)
        copy_scales<Tile>(stage + Tile::lhs_bytes + Tile::products * Tile::code_bytes, rhs, part, step);
      if (++step % Tile::part_steps == 0) {
        number += work.step();
        begin();
      }
    }
    copies_commit();
  }

  MOEC_DEVICE void copy_lhs(u8* stage) const {
    const int unit = thread_index() & 7, at = step % Tile::steps_each * Tile::depth + unit * in_unit<T>;
    const T* const from = chosen<Tile::segments>(lhs, step / Tile::steps_each);
    MOEC_UNROLL
    for (int i = 0; i < each; i++) {
      const int row = (thread_index() >> 3) + i * lines;
      const u32 place = in_order_of_codes<Tile>() ? place_of_rows(row, unit) : swizzled(row, unit);
      if (Tile::rows % lines == 0 || row < Tile::rows)
        bring_unit<pitch_of_rows<T>(Tile::inner)>(stage + place, from, at < Tile::inner ? source[i] : -1, at);
    }
  }

  MOEC_DEVICE void copy_rhs(u8* stage) const {
    const int unit = thread_index() & 7, first = step % Tile::steps_each * Tile::depth;
    constexpr int count = (Tile::width + lines - 1) / lines;
    MOEC_UNROLL
    for (int p = 0; p < Tile::products; p++) {
      const T* of[Tile::segments];
      MOEC_UNROLL
      for (int i = 0; i < Tile::segments; i++) of[i] = rhs[i * Tile::products + p];
      const T* const from = chosen<Tile::segments>(of, step / Tile::steps_each);
      MOEC_UNROLL
      for (int i = 0; i < count; i++) {
        const int line = (thread_index() >> 3) + i * lines;
        if (Tile::width % lines != 0 && line >= Tile::width) continue;
        int column, k;
        i64 at;
        if constexpr (Tile::transposed) {
          k = first + line % 64;
          column = part.column + line / 64 * 64 + unit * 8;
          at = ((i64)part.expert * Tile::inner + k) * Tile::columns + column;
        } else {
          k = first + unit * 8;
          column = part.column + line;
          at = ((i64)part.expert * Tile::columns + column) * Tile::inner + k;
        }
        const bool real = column < Tile::columns && k < Tile::inner;
        copy_async(stage + p * Tile::width * 128 + swizzled(line, unit), from + (real ? at : 0), real ? 16 : 0);
      }
    }
  }
};

template <class Tile>
using WarpSums = typename Tile::Sum[Tile::products][Tile::high][Tile::wide][4];

// Adds what one stage gives to the sums of this warp.
template <class Tile>
MOEC_DEVICE void multiply_stage(const u8* stage, WarpSums<Tile>& sums) {
  const int lane = lane_index(), warp = warp_index();
  const int row = warp / Tile::across * (Tile::high * 16) + (lane & 15);
  const int column = warp % Tile::across * (Tile::wide * 8);
  MOEC_UNROLL
  for (int k = 0; k < 4; k++) {
    u32 a[Tile::high][4];
    MOEC_UNROLL
    for (int i = 0; i < Tile::high; i++) load_matrices(a[i], stage + swizzled(row + i * 16, k * 2 + (lane >> 4)));
    MOEC_UNROLL
    for (int p = 0; p < Tile::products; p++) {
      const u8* const rhs = stage + Tile::lhs_bytes + p * Tile::width * 128;
      MOEC_UNROLL
      for (int j = 0; j < Tile::wide; j += 2) {
        u32 b[4];
        if constexpr (Tile::transposed) {
          const int at = column + j * 8 + (lane >> 4) * 8;
          load_matrices_transposed(b, rhs + swizzled(at / 64 * 64 + k * 16 + (lane & 15), at / 8 & 7));
        } else if constexpr (Tile::wide == 1) {
          // Four matrices along k are for two steps of k.
          load_matrices(b, rhs + swizzled(column + (lane & 7), k / 2 * 4 + (lane >> 3)));
          if (k & 1) {
            b[0] = b[2];
            b[1] = b[3];
          }
        } else {
          const int at = column + j * 8 + (lane >> 4) * 8 + (lane & 7);
          load_matrices(b, rhs + swizzled(at, k * 2 + (lane >> 3 & 1)));
        }
        MOEC_UNROLL
        for (int i = 0; i < Tile::high; i++) {
          multiply<typename Tile::T>(sums[p][i][j], a[i], b[0], b[1]);
          if constexpr (Tile::wide > 1) multiply<typename Tile::T>(sums[p][i][j + 1], a[i], b[2], b[3]);
        }
      }
    }
  }
}

// The sums of a part as floats: those of weights, of codes times the scales of their channels.
template <class Tile>
MOEC_DEVICE void finish_sums(const typename Tile::Weight* weights, const Part& part, const WarpSums<Tile>& sums,
                             float (&to)[Tile::products][Tile::high][Tile::wide][4]) {
  const int first = part.column + warp_index() % Tile::across * (Tile::wide * 8) + (lane_index() & 3) * 2;
  MOEC_UNROLL
  for (int p = 0; p < Tile::products; p++) {
    MOEC_UNROLL
    for (int j = 0; j < Tile::wide; j++) {
      MOEC_UNROLL
      for (int odd = 0; odd < 2; odd++) {
        [[maybe_unused]] float scale = 1.0f;
        if constexpr (Tile::coded && !Tile::grouped) {
          const int column = first + j * 8 + odd;
          scale = load(weights[p].scales + (i64)part.expert * Tile::columns +
                       (column < Tile::columns ? column : Tile::columns - 1));
        }
        MOEC_UNROLL
        for (int i = 0; i < Tile::high; i++) {
          MOEC_UNROLL
          for (int n = odd; n < 4; n += 2) {
            if constexpr (!Tile::coded) to[p][i][j][n] = sums[p][i][j][n];
            else if constexpr (Tile::grouped) to[p][i][j][n] = number_of<Tile>(sums[p][i][j][n]);
            else to[p][i][j][n] = number_of<Tile>(sums[p][i][j][n]) * scale;
          }
        }
      }
    }
  }
}

// What becomes of the sums of a part.
template <class Tile, class Epilogue>
MOEC_DEVICE Epilogue epilogue_of(const Epilogue& epilogue, int number) {
  if constexpr (Tile::splits == 1) return epilogue;
  else return epilogue.of(number % Tile::splits);
}

// The whole kernel: Tile::threads threads, stages * stage_bytes + 4 * experts bytes of shared memory.
template <class Tile, class P, class Epilogue>
MOEC_DEVICE void multiply_by_warps(u8* shared, const typename Tile::T* const (&lhs)[Tile::segments], const P& plan,
                                   const typename Tile::Weight (&rhs)[Tile::segments * Tile::products],
                                   const Epilogue& epilogue) {
  const Work<P, Tile::rows, Tile::columns, Tile::width> work{
      plan, shared_array<int>(shared + Tile::stages * Tile::stage_bytes)};
  if (warp_index() == 0) work.count();
  sync_block();
  Loader<Tile, decltype(work)> loader(work, lhs, rhs);
  for (int i = 0; i < Tile::stages - 1; i++) loader.bring(shared + i * Tile::stage_bytes);
  const int lane = lane_index(), warp = warp_index();
  const int parts = work.parts() * Tile::splits;
  int step = 0;
  for (int number = work.first(); number < parts; number += work.step()) {
    WarpSums<Tile> sums = {};
    for (int k = 0; k < Tile::part_steps; k++, step++) {
      copies_wait<Tile::stages - 2>();
      sync_block();
      loader.bring(shared + (step + Tile::stages - 1) % Tile::stages * Tile::stage_bytes);
      const u8* const stage = shared + step % Tile::stages * Tile::stage_bytes;
      if constexpr (!Tile::coded) multiply_stage<Tile>(stage, sums);
      else if constexpr (Tile::whole) multiply_whole_codes<Tile>(stage, sums);
      else multiply_codes<Tile>(stage, sums);
    }
    const Part part = work.part(number / Tile::splits);
    const Epilogue ends = epilogue_of<Tile>(epilogue, number);
    float made[Tile::products][Tile::high][Tile::wide][4];
    finish_sums<Tile>(rhs, part, sums, made);
    MOEC_UNROLL
    for (int i = 0; i < Tile::high; i++) {
      MOEC_UNROLL
      for (int half = 0; half < 2; half++) {
        const int row = (warp / Tile::across * Tile::high + i) * 16 + half * 8 + lane / 4;
        const bool real = row < part.count;
        const int line = part.first + (real ? row : 0);
        emit_row<Tile::columns, Tile::products, Tile::wide>(
            ends, ends.row(line, part.expert, work.plan.slot(line)), line, real,
            part.column + warp % Tile::across * (Tile::wide * 8), Tile::columns,
            [&](int p, int block, int odd) { return made[p][i][block][half * 2 + odd]; });
      }
    }
  }
  copies_wait<0>();
}

}  // namespace moec
