// Weights by sigmoid.
#pragma once

#include "tables.h"

static logit_t score_of(logit_t logit) {
#pragma HLS inline
  const ap_uint<24> size = logit < 0 ? ap_uint<24>(-logit) : ap_uint<24>(logit);
  const ap_uint<20> place = size >> 20 != 0 ? ap_uint<20>((1 << 20) - 1) : ap_uint<20>(size);
  const ap_uint<9> entry = place.range(19, 11);
  const ap_uint<11> fraction = place.range(10, 0);
  const int below = rounded(interpolate<11>(SIGMOID[entry], fraction), 13).to_int();
  return logit >= 0 ? (1 << 16) - below : below;
}

struct pass_t {};

static void see(pass_t &, logit_t, bool) {
#pragma HLS inline
}

static void weigh(const logit_t chosen[SLOTS], const pass_t &, share_t shares[SLOTS]) {
#pragma HLS inline off
  ap_uint<37> sum = 0;
  for (int slot = 0; slot < SLOTS; slot++) {
#pragma HLS pipeline II = 1
    sum += chosen[slot];
  }
  for (int slot = 0; slot < SLOTS; slot++) {
#pragma HLS pipeline II = 1
    shares[slot] = RENORM ? divide(chosen[slot], sum) : share_t(chosen[slot]);
  }
}
