// Rows rounded to whole numbers with a scale each.
#pragma once
#include "moec/matmul/work.cuh"
#include "moec/rows.cuh"
#include "moec/scalar.cuh"

namespace moec {

// Rows [count, columns] become codes from -127 to 127, a byte each, in lines of whole 16 bytes, and a scale: the largest
// magnitude over 127.  A code is the quotient rounded to nearest, ties to even; 0 where it is NaN, so that a row with a NaN
// has its scale to spoil it.  A warp has a row.
template <int columns, class T>
MOEC_DEVICE void quantise_rows(const T* rows, i8* codes, float* scales, int count) {
  const int warps = block_threads() / 32, lane = lane_index();
  for (int row = block_index() * warps + warp_index(); row < count; row += grid_blocks() * warps) {
    const T* const from = rows + (i64)row * columns;
    constexpr int pitch = pitch_of_rows<i8>(columns);
    i8* const to = codes + (i64)row * pitch;
    u32 largest = 0;  // bits of magnitudes order as these do, with NaN above all
    for (int at = lane; at < columns; at += 32) {
      const u32 magnitude = bits_of(load(from + at)) & 0x7fffffffu;
      largest = magnitude > largest ? magnitude : largest;
    }
    const float scale = float_of(warp_max(largest)) / 127.0f;
    for (int at = lane; at < columns; at += 32) {
      const float quotient = load(from + at) / scale;
      const float code = rintf(quotient < -127.0f ? -127.0f : quotient > 127.0f ? 127.0f : quotient);
      to[at] = quotient != quotient ? 0 : (i8)code;
    }
    if (columns + lane < pitch) to[columns + lane] = 0;
    if (lane == 0) scales[row] = scale;
  }
}

}  // namespace moec
