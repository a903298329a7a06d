// Weights by softmax.  Logits are to base 2: a power is a shift and 2^f, which a table holds.
#pragma once

#include "tables.h"

// 2^logit, which is part * 2^(whole - 25).
struct power_t {
  ap_int<9> whole;
  ap_uint<37> part;
};

static power_t power(logit_t logit) {
#pragma HLS inline
  power_t result;
  const ap_uint<9> entry = logit.range(15, 7);
  const ap_uint<7> fraction = logit.range(6, 0);
  result.whole = logit >> 16;
  result.part = (ap_uint<37>(1 << 16) + ap_uint<37>(rounded(interpolate<7>(EXP2[entry], fraction), 9))) << 9;
  return result;
}

// value / 2^places rounded down, for any number of places.
static ap_uint<37> shifted(ap_uint<37> value, ap_uint<9> places) {
#pragma HLS inline
  return places > 36 ? ap_uint<37>(0) : ap_uint<37>(value >> places);
}

static logit_t score_of(logit_t logit) {
#pragma HLS inline
  return logit;
}

// The sum of the powers in a single pass: it is relative to the largest exponent so far, and shifted where that grows.
struct pass_t {
  ap_int<9> most;
  ap_uint<37> total;
};

static void see(pass_t &pass, logit_t logit, bool first) {
#pragma HLS inline
  const power_t next = power(logit);
  if (first) {
    pass.most = next.whole;
    pass.total = next.part;
    return;
  }
  const ap_uint<9> above = next.whole > pass.most ? ap_uint<9>(next.whole - pass.most) : ap_uint<9>(0);
  pass.most += above;
  pass.total = shifted(pass.total, above) + shifted(next.part, ap_uint<9>(pass.most - next.whole));
}

// Of the experts chosen, the largest logit first.
static void weigh(const logit_t chosen[SLOTS], const pass_t &pass, share_t shares[SLOTS]) {
#pragma HLS inline off
  ap_uint<37> part[SLOTS], sum = 0;
  const ap_int<9> most = power(chosen[0]).whole;
  for (int slot = 0; slot < SLOTS; slot++) {
#pragma HLS pipeline II = 1
    const power_t next = power(chosen[slot]);
    part[slot] = shifted(next.part, ap_uint<9>(most - next.whole));
    sum += part[slot];
  }
  for (int slot = 0; slot < SLOTS; slot++) {
#pragma HLS pipeline II = 1
    shares[slot] = divide(part[slot], OVER_CHOSEN ? sum : pass.total);
  }
}
