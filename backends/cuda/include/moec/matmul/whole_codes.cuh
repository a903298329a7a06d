// Products of codes with rows that are whole numbers of a byte: nothing becomes a float before sums of 32 bits are made.
//
// Packed codes are widened to bytes in the order in which their words have them; elements of rows are put into the same.
#pragma once
#include "moec/matmul/codes.cuh"

namespace moec {

// A byte of a widened code is the code times this: those of four bits are its upper half.
template <class Code>
inline constexpr int widened = CodeForm<Code>::bits == 4 ? 16 : 1;

// A sum of a tile's products as that of its codes: of whole numbers in the end, of groups as floats.
template <class Tile>
MOEC_DEVICE float number_of(int sum) {
  return (float)(sum / widened<typename Tile::Weight::Code>);  // exact, each term is a multiple
}
template <class Tile>
MOEC_DEVICE float number_of(float sum) {
  if constexpr (sizeof(typename Tile::T) != 1) return sum;
  else return sum * (1.0f / widened<typename Tile::Weight::Code>);
}

// Bytes 0 to 2 of a code and a bias of one become the code: -1, 0 or 1.
MOEC_DEVICE u32 less_one(u32 bytes) { return ((bytes | 0x80808080u) - 0x01010101u) ^ 0x80808080u; }

// Codes 8 c to 8 c + 7 of 32, in lane c of four, as bytes: 0, 4, 1, 5 and 2, 6, 3, 7 of them.  part: which 32 of those
// whose codes share the word.
template <class Code>
MOEC_DEVICE void widen(u32 word, int part, u32 (&to)[2]) {
  if constexpr (Code::bits == 4) {
    to[0] = (word << 4 & 0xf0f0f0f0u) ^ 0x80808080u;
    to[1] = (word & 0xf0f0f0f0u) ^ 0x80808080u;
  } else {
    const u32 pairs = word >> 8 * part & 0x00ff00ffu, apart = pairs | pairs << 4;
    to[0] = less_one(apart & 0x03030303u);
    to[1] = less_one(apart >> 2 & 0x03030303u);
  }
}

// Codes 4 c to 4 c + 3 of 16, in lane c of four, as bytes in their order, out of the word that has them.
template <class Code>
MOEC_DEVICE u32 widen_in_order(u32 word, int part, int odd) {
  if constexpr (Code::bits == 4) {
    const u32 pairs = permute_bytes(word, 0, odd ? 0x3131u : 0x2020u);
    return ((pairs & 0xf0f00000u) | (pairs << 4 & 0x0000f0f0u)) ^ 0x80808080u;
  } else {
    const u32 pairs = permute_bytes(word, 0, part ? 0x3131u : 0x2020u) >> 4 * odd;
    return less_one((pairs & 0x00000303u) | (pairs >> 2 & 0x03030000u));
  }
}

// Rows of 32 elements, number `k` of a stage, in the order of `widen` or, where codes have a byte each, as they lie.
template <class Tile>
MOEC_DEVICE void load_whole_rows(const u8* stage, int warp_row, int k, u32 (&a)[Tile::high][4]) {
  const int lane = lane_index();
  MOEC_UNROLL
  for (int i = 0; i < Tile::high; i++) {
    const int first = warp_row + i * 16;
    if constexpr (Tile::Weight::packed) {
      MOEC_UNROLL
      for (int half = 0; half < 2; half++) {
        const u32 place = place_of_rows(first + half * 8 + (lane >> 2), k * 2 + (lane >> 1 & 1)) + (lane & 1) * 8;
        const Pair eight = load_shared_pair(stage + place);
        const u32 low = bits_of(eight.low), high = bits_of(eight.high);
        a[i][half] = permute_bytes(low, high, 0x5140);
        a[i][2 + half] = permute_bytes(low, high, 0x7362);
      }
    } else {
      load_matrices(a[i], stage + swizzled(first + (lane & 15), k * 2 + (lane >> 4)));
    }
  }
}

// The codes of 32 elements of k, number `k` of 64, as an operand of a product.
template <class Weight>
MOEC_DEVICE void widen_step(const u32 (&words)[Weight::units], int k, u32 (&b)[2]) {
  if constexpr (Weight::packed) {
    widen<typename Weight::Code>(words[k * Weight::units / 2], k, b);
  } else {
    b[0] = words[k * 2];
    b[1] = words[k * 2 + 1];
  }
}

// Where sums of a group begin: as a float's bits, 1.5 * 2^23, so that those of a sum below 2^22 are what is added to it.
constexpr int BEGIN_OF_GROUP = 0x4b400000;
MOEC_DEVICE float sum_of_group(int sum) { return float_of((u32)sum) - 12582912.0f; }

// Adds what one stage gives to the sums of this warp, which are of codes; with scales of groups, of weights.
template <class Tile>
MOEC_DEVICE void multiply_whole_codes(const u8* stage,
                                      typename Tile::Sum (&sums)[Tile::products][Tile::high][Tile::wide][4]) {
  const int row = warp_index() / Tile::across * (Tile::high * 16);
  constexpr int steps = Tile::grouped ? Tile::chunk / 32 : 1;  // whose rows a lane has at a time
  MOEC_UNROLL
  for (int half = 0; half < 2; half++) {
    u32 words[Tile::products][Tile::wide][Tile::Weight::units];
    load_codes<Tile>(stage, half, words);
    MOEC_UNROLL
    for (int first = 0; first < 2; first += steps) {
      u32 a[steps][Tile::high][4];
      MOEC_UNROLL
      for (int k = 0; k < steps; k++) load_whole_rows<Tile>(stage, row, half * 2 + first + k, a[k]);
      MOEC_UNROLL
      for (int p = 0; p < Tile::products; p++) {
        MOEC_UNROLL
        for (int j = 0; j < Tile::wide; j++) {
          u32 b[steps][2];
          MOEC_UNROLL
          for (int k = 0; k < steps; k++) widen_step<typename Tile::Weight>(words[p][j], first + k, b[k]);
          if constexpr (Tile::grouped) {
            float scale[2];
            load_scales<Tile>(stage, p, half * 64 + first * 32, j, scale);
            MOEC_UNROLL
            for (int i = 0; i < Tile::high; i++) {
              int some[4] = {BEGIN_OF_GROUP, BEGIN_OF_GROUP, BEGIN_OF_GROUP, BEGIN_OF_GROUP};
              MOEC_UNROLL
              for (int k = 0; k < steps; k++) multiply<i8>(some, a[k][i], b[k][0], b[k][1]);
              MOEC_UNROLL
              for (int n = 0; n < 4; n++)
                sums[p][i][j][n] = fmaf(sum_of_group(some[n]), scale[n % 2], sums[p][i][j][n]);
            }
          } else {
            MOEC_UNROLL
            for (int i = 0; i < Tile::high; i++) multiply<i8>(sums[p][i][j], a[0][i], b[0][0], b[0][1]);
          }
        }
      }
    }
  }
}

// The 64 lines of a warpgroup, codes of 64 inputs of a stage, as this thread's part of two operands of products.
template <class Tile>
MOEC_DEVICE void widen_lines(const u8* lines, int half, u32 (&to)[2][4]) {
  using Code = typename Tile::Weight::Code;
  constexpr int each = Tile::Weight::units;  // 16 bytes, of 64 codes
  const int place = thread_index() / 32 % 4 * 16 + (lane_index() >> 2), c = lane_index() & 3;
  MOEC_UNROLL
  for (int line = 0; line < 2; line++) {
    MOEC_UNROLL
    for (int n = 0; n < 2; n++) {
      MOEC_UNROLL
      for (int upper = 0; upper < 2; upper++) {  // elements 16 to 31 of 32
        if constexpr (Tile::Weight::packed) {
          const Shared<u32> at = shared_array<u32>(
              (void*)(lines + place_of_codes<Tile::units>(place + line * 8, half * each + n * each / 2)));
          to[n][upper * 2 + line] = widen_in_order<Code>(at[upper * 2 + c / 2], n, c & 1);
        } else {
          const Shared<u32> at = shared_array<u32>(
              (void*)(lines + place_of_codes<Tile::units>(place + line * 8, half * each + n * 2 + upper)));
          to[n][upper * 2 + line] = at[c];
        }
      }
    }
  }
}

}  // namespace moec
