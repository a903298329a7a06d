// Integers that stand for real numbers: rounding, clamping, multiplying with a real number, tables, division.
#pragma once

#include "types.h"

// Into the symmetric range of BITS bits.
template <int BITS>
static int clamp(product_t value) {
#pragma HLS inline
  const int most = (1 << (BITS - 1)) - 1;
  return value > most ? most : value < -most ? -most : value.to_int();
}

// value / 2^places to the nearest, halves up.
static product_t rounded(ap_int<48> value, int places) {
#pragma HLS inline
  return (value + (ap_int<48>(1) << (places - 1))) >> places;
}

static multiplier_t multiplier_of(record_t record) {
#pragma HLS inline
  return record.range(16, 0);
}

static shift_t shift_of(record_t record) {
#pragma HLS inline
  return record.range(22, 17);
}

static sum_t bias_of(record_t record) {
#pragma HLS inline
  return ap_int<41>(record.range(63, 23));
}

// value * multiplier / 2^shift to the nearest, halves up.
static product_t scaled(sum_t value, record_t record) {
#pragma HLS inline
  const ap_int<ACCUMULATOR_BITS + 17> product = value * multiplier_of(record);
  const shift_t places = shift_of(record);
  return (product + (ap_int<49>(1) << (places - 1))) >> places;
}

// Between the entries of a table of 512; `position` has FRACTION bits behind the entry's number, the result has 2 bits
// more than that behind its point.
template <int FRACTION>
static ap_int<48> interpolate(record_t entry, ap_uint<FRACTION> fraction) {
#pragma HLS inline
  const ap_uint<18> base = entry.range(17, 0);
  const ap_int<18> step = entry.range(35, 18);
  return (ap_int<18 + FRACTION + 1>(base) << FRACTION) + step * fraction;
}

// part / whole with 16 fraction bits, halves up; 0 where `whole` is 0.
inline share_t divide(ap_uint<37> part, ap_uint<37> whole) {
#pragma HLS inline off
  if (whole == 0) return 0;
  return ((ap_uint<53>(part) << 16) + (whole >> 1)) / whole;
}
