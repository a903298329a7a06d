// The function between an expert's linears.
#pragma once

#include "arithmetic.h"

// relu(r), less what the table holds of it: relu - act is even for GELU and for SiLU.
static wide_t activate(wide_t value, const record_t table[512]) {
#pragma HLS inline
  const wide_t positive = value > 0 ? value : wide_t(0);
  if (!HAS_TABLE) return positive;
  const ap_uint<15> size = value < 0 ? ap_uint<15>(-value) : ap_uint<15>(value);
  const ap_uint<9> entry = size.range(14, 6);
  const ap_uint<6> fraction = size.range(5, 0);
  return positive - rounded(interpolate<6>(table[entry], fraction), 8);
}
