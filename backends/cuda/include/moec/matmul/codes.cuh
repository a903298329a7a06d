// Weights as codes of 2, 4 or 8 bits with scales: they stay codes until a warp has them in registers.
//
// A lane gets words of codes that are neighbours along k, where a product takes two and two that are 8 apart.  The sum
// over k does not ask for an order: rows are read in the order of the codes, 8 or 16 bytes a lane.
#pragma once
#include "moec/matmul/work.cuh"
#include "moec/scalar.cuh"

namespace moec {

// How codes lie in memory: those of a byte each, one after the other, [E, N, K].
template <class Code>
struct CodeForm {
  static constexpr int bits = 8;
  static constexpr bool packed = false;
};
// Smaller ones in lines of 64, [E, N, K / 64 rounded up, 8 * bits bytes], in the order in which lanes want them: word c
// of 16 bytes has, for every 32 codes that these hold, codes 8 c to 8 c + 7.  Pair j of these codes, with those of the
// next 32 behind them, is at bit `bits * j` of each half of the word.
template <int bits_, int bias>
struct CodeForm<Packed<bits_, bias>> {
  static constexpr int bits = bits_;
  static constexpr bool packed = true;
};

// Codes and their scales.  Scales of channels are [E, N]; those of groups of inputs [E, groups, N rounded up to 8].
template <class Code_, class Scale_>
struct Coded {
  using Code = Code_;
  using Scale = Scale_;
  static constexpr int bits = CodeForm<Code>::bits, units = bits / 2;  // lines of 64 codes are `units` times 16 bytes
  static constexpr bool packed = CodeForm<Code>::packed;
  // Bytes of a channel's codes.
  template <int inner>
  MOEC_DEVICE static constexpr int pitch() {
    return packed ? (inner + 63) / 64 * units * 16 : inner;
  }
  const Code* codes;
  const Scale* scales;
};

// Code `k` of row `row` (an expert's column) in memory, as a float.
template <int inner>
MOEC_DEVICE float code_at(const i8* codes, i64 row, int k) {
  return (float)codes[row * inner + k];
}
template <int inner>
MOEC_DEVICE float code_at(const e4m3* codes, i64 row, int k) {
  const u32 code = codes[row * inner + k].bits, magnitude = code & 0x7f;
  const u32 sign = (code & 0x80) << 24;
  if (magnitude == 0x7f) return not_a_number();
  return float_of(magnitude << 20 | sign) * 0x1p120f;  // from the exponent's bias of f32 to that of e4m3
}
template <int inner, int bits, int bias>
MOEC_DEVICE float code_at(const Packed<bits, bias>* codes, i64 row, int k) {
  constexpr int together = 128 / bits;  // in 16 bytes
  const int unit = k / together, within = k % together;
  const int word = unit * 4 + within % 32 / 8, pair = within / 32 * 4 + within % 8 / 2;
  const u32 four = ((const u32*)codes)[row * ((inner + 63) / 64 * 2 * bits) + word];
  return (float)((int)(four >> (k % 2 * 16 + pair * bits) & ((1u << bits) - 1)) - bias);
}

// The place of 16 bytes of the codes of column `column`, number `unit` of a stage: eight columns lie in different banks.
template <int units>
MOEC_DEVICE u32 place_of_codes(u32 column, u32 unit) {
  return (column * units + (unit ^ (column * units / 8 & (units - 1)))) << 4;
}

// The place of 8 elements of row `row`, number `unit` (0..7): neither the first 16 elements of four rows nor the first
// 32 of two share a bank.
MOEC_DEVICE u32 place_of_rows(u32 row, u32 unit) { return row * 128 + ((unit ^ ((row & 1) << 2 | (row & 2))) << 4); }

// Starts copying what `part` needs of step `step`, of all products; the block's threads share it.
template <class Tile>
MOEC_DEVICE void copy_codes(u8* to, const typename Tile::Weight* weights, const Part& part, int step) {
  using Weight = typename Tile::Weight;
  constexpr int units = Tile::units, lines = Tile::threads / units, count = (Tile::width + lines - 1) / lines;
  constexpr int pitch = Weight::template pitch<Tile::inner>();
  const int unit = thread_index() % units, at = step * units * 16 + unit * 16;
  MOEC_UNROLL
  for (int p = 0; p < Tile::products; p++) {
    MOEC_UNROLL
    for (int i = 0; i < count; i++) {
      const int line = thread_index() / units + i * lines, column = part.column + line;
      if (Tile::width % lines != 0 && line >= Tile::width) continue;
      const bool real = column < Tile::columns && at < pitch;
      const i64 from = ((i64)part.expert * Tile::columns + column) * pitch + at;
      copy_async(to + p * Tile::code_bytes + place_of_codes<units>(line, unit), weights[p].codes + (real ? from : 0),
                 real ? 16 : 0);
    }
  }
}

// The same of scales of groups: [products][scale_rows][width] of a stage.
template <class Tile>
MOEC_DEVICE void copy_scales(u8* to, const typename Tile::Weight* weights, const Part& part, int step) {
  using Scale = typename Tile::Weight::Scale;
  constexpr int each = 16 / sizeof(Scale), across = Tile::width / each, pitch = (Tile::columns + 7) / 8 * 8;
  constexpr int units = Tile::scale_rows * across;
  MOEC_UNROLL
  for (int p = 0; p < Tile::products; p++) {
    for (int unit = thread_index(); unit < units; unit += Tile::threads) {
      const int group = (step * Tile::depth + unit / across * Tile::chunk) / Tile::group;
      const int column = part.column + unit % across * each;
      const bool real = column < pitch && group < Tile::groups;
      const i64 from = ((i64)part.expert * Tile::groups + group) * pitch + column;
      copy_async(to + (p * units + unit) * 16, weights[p].scales + (real ? from : 0), real ? 16 : 0);
    }
  }
}

// Rows of 16 elements, number `k` of a stage, in the order of codes of a byte.
template <class Tile>
MOEC_DEVICE void load_rows(const u8* stage, int row, int k, u32 (&a)[Tile::high][4]) {
  const int lane = lane_index();
  MOEC_UNROLL
  for (int i = 0; i < Tile::high; i++) {
    MOEC_UNROLL
    for (int half = 0; half < 2; half++) {
      const Pair four =
          load_shared_pair(stage + place_of_rows(row + i * 16 + half * 8, k * 2 + (lane >> 1 & 1)) + (lane & 1) * 8);
      a[i][half] = bits_of(four.low);
      a[i][2 + half] = bits_of(four.high);
    }
  }
}

// Rows of 32 elements, number `k32` of a stage, in the order of packed codes.
template <class Tile>
MOEC_DEVICE void load_packed_rows(const u8* stage, int row, int k32, u32 (&a)[2][Tile::high][4]) {
  MOEC_UNROLL
  for (int i = 0; i < Tile::high; i++) {
    MOEC_UNROLL
    for (int half = 0; half < 2; half++) {
      const Quad eight = load_shared(stage + place_of_rows(row + i * 16 + half * 8, k32 * 4 + (lane_index() & 3)));
      MOEC_UNROLL
      for (int k = 0; k < 2; k++) {
        a[k][i][half] = eight.word[k * 2];
        a[k][i][2 + half] = eight.word[k * 2 + 1];
      }
    }
  }
}

// The codes of this warp's columns, those of 64 inputs that are number `part` of a stage, as words.
template <class Tile>
MOEC_DEVICE void load_codes(const u8* stage, int part, u32 (&words)[Tile::products][Tile::wide][Tile::Weight::units]) {
  constexpr int units = Tile::Weight::units, together = 4 / units;  // blocks of 8 columns that are loaded at once
  const int lane = lane_index();
  const int column = warp_index() % Tile::across * (Tile::wide * 8) + (lane & 7);
  MOEC_UNROLL
  for (int p = 0; p < Tile::products; p++) {
    const u8* const codes = stage + Tile::lhs_bytes + p * Tile::code_bytes;
    MOEC_UNROLL
    for (int j = 0; j < Tile::wide; j += together) {
      const int block = (j + (lane >> 3) / units) % Tile::wide;
      u32 loaded[4];
      const int unit = part * units + (lane >> 3) % units;
      load_matrices(loaded, codes + place_of_codes<Tile::units>(column + block * 8, unit));
      MOEC_UNROLL
      for (int n = 0; n < 4; n++)
        if (j + n / units < Tile::wide) words[p][j + n / units][n % units] = loaded[n];
    }
  }
}

// The codes of 16 elements of k, number `k` of a stage, as an operand of a product.
template <class Tile>
MOEC_DEVICE void decode_step(const u32 (&words)[Tile::Weight::units], int k, u32 (&b)[2]) {
  using Code = typename Tile::Weight::Code;
  if constexpr (Tile::Weight::packed) {
    constexpr int halves = 2 / Tile::Weight::units;  // of a stage, whose codes a word has
    constexpr u32 mask = ((1u << Code::bits) - 1) * 0x10001u;
    MOEC_UNROLL
    for (int i = 0; i < 2; i++) {
      const int pair = k / 2 % halves * 4 + k % 2 * 2 + i;
      b[i] = small_numbers<typename Tile::T>(words[k / 2 / halves] >> pair * Code::bits, mask, Code::bias);
    }
  } else {
    decode<typename Tile::T, Code>(words[k], b);
  }
}

// Scales of groups of two columns of block `j`, for the chunk of a stage that begins with its element `k`.
template <class Tile>
MOEC_DEVICE void load_scales(const u8* stage, int p, int k, int j, float (&to)[2]) {
  using Scale = typename Tile::Weight::Scale;
  const int column = warp_index() % Tile::across * (Tile::wide * 8) + j * 8 + (lane_index() & 3) * 2;
  const u8* const at = stage + Tile::lhs_bytes + Tile::products * Tile::code_bytes +
                       ((p * Tile::scale_rows + k / Tile::chunk) * Tile::width + column) * sizeof(Scale);
  if constexpr (sizeof(Scale) == 4) {
    const Pair two = load_shared_pair(at);
    to[0] = two.low;
    to[1] = two.high;
  } else {
    const u32 two = shared_array<u32>((void*)at)[0];
    to[0] = to_float(Scale{(u16)two});
    to[1] = to_float(Scale{(u16)(two >> 16)});
  }
}

// Adds what one stage gives to the sums of this warp, which are of codes; with scales of groups, of weights.
template <class Tile>
MOEC_DEVICE void multiply_codes(const u8* stage, float (&sums)[Tile::products][Tile::high][Tile::wide][4]) {
  using T = typename Tile::T;
  const int row = warp_index() / Tile::across * (Tile::high * 16) + (lane_index() >> 2);
  u32 words[Tile::products][Tile::wide][Tile::Weight::units];
  load_codes<Tile>(stage, 0, words);
  constexpr int steps = Tile::grouped || Tile::Weight::packed ? 2 : 1;  // whose rows a lane has at a time
  MOEC_UNROLL
  for (int first = 0; first < 4; first += steps) {
    u32 a[steps][Tile::high][4];
    if constexpr (Tile::Weight::packed) {
      load_packed_rows<Tile>(stage, row, first / 2, a);
    } else {
      MOEC_UNROLL
      for (int k = 0; k < steps; k++) load_rows<Tile>(stage, row, first + k, a[k]);
    }
    MOEC_UNROLL
    for (int p = 0; p < Tile::products; p++) {
      MOEC_UNROLL
      for (int j = 0; j < Tile::wide; j++) {
        u32 b[steps][2];
        MOEC_UNROLL
        for (int k = 0; k < steps; k++) decode_step<Tile>(words[p][j], first + k, b[k]);
        if constexpr (Tile::grouped) {
          float scale[2];
          load_scales<Tile>(stage, p, first * 16, j, scale);
          MOEC_UNROLL
          for (int i = 0; i < Tile::high; i++) {
            float some[4] = {};
            MOEC_UNROLL
            for (int k = 0; k < steps; k++) multiply<T>(some, a[k][i], b[k][0], b[k][1]);
            MOEC_UNROLL
            for (int n = 0; n < 4; n++) sums[p][i][j][n] = fmaf(some[n], scale[n % 2], sums[p][i][j][n]);
          }
        } else {
          MOEC_UNROLL
          for (int k = 0; k < steps; k++) {
            MOEC_UNROLL
            for (int i = 0; i < Tile::high; i++) multiply<T>(sums[p][i][j], a[k][i], b[k][0], b[k][1]);
          }
        }
      }
    }
  }
}

}  // namespace moec
