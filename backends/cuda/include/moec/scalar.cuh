// What printed regions call beside the primitives.  Floats are `float` in registers, integers below 32 bits `int`.
#pragma once
#include "moec/primitives.cuh"
#ifndef __CUDACC__
#include <cmath>
#endif

namespace moec {

MOEC_DEVICE float infinity() { return float_of(0x7f800000u); }
MOEC_DEVICE float not_a_number() { return float_of(0x7fc00000u); }

MOEC_DEVICE float round_bf16(float value) { return to_float(from_float<bf16>(value)); }
MOEC_DEVICE float round_f16(float value) { return to_float(from_float<f16>(value)); }

// As arith.maximumf and arith.minimumf: NaN if either operand is.
MOEC_DEVICE float maximum(float a, float b) { return a != a || a > b ? a : b; }
MOEC_DEVICE float minimum(float a, float b) { return a != a || a < b ? a : b; }

MOEC_DEVICE u32 as_unsigned(bool value) { return value; }
MOEC_DEVICE u32 as_unsigned(int value) { return (u32)value; }
MOEC_DEVICE u64 as_unsigned(i64 value) { return (u64)value; }

// Elements between memory and registers; a mask's bit takes a byte.
MOEC_DEVICE float load(const float* place) { return *place; }
MOEC_DEVICE float load(const bf16* place) { return to_float(*place); }
MOEC_DEVICE float load(const f16* place) { return to_float(*place); }
MOEC_DEVICE bool load(const u8* place) { return *place != 0; }
MOEC_DEVICE int load(const i8* place) { return *place; }
MOEC_DEVICE int load(const int* place) { return *place; }
MOEC_DEVICE i64 load(const i64* place) { return *place; }

MOEC_DEVICE void store(float* place, float value) { *place = value; }
MOEC_DEVICE void store(bf16* place, float value) { *place = from_float<bf16>(value); }
MOEC_DEVICE void store(f16* place, float value) { *place = from_float<f16>(value); }
MOEC_DEVICE void store(u8* place, bool value) { *place = value; }
MOEC_DEVICE void store(i8* place, int value) { *place = (i8)value; }
MOEC_DEVICE void store(int* place, int value) { *place = value; }
MOEC_DEVICE void store(i64* place, i64 value) { *place = value; }

}  // namespace moec
