// Weights are the logits themselves.
#pragma once

#include "arithmetic.h"

static logit_t score_of(logit_t logit) {
#pragma HLS inline
  return logit;
}

struct pass_t {};

static void see(pass_t &, logit_t, bool) {
#pragma HLS inline
}

static void weigh(const logit_t chosen[SLOTS], const pass_t &, share_t shares[SLOTS]) {
#pragma HLS inline off
  for (int slot = 0; slot < SLOTS; slot++) {
#pragma HLS pipeline II = 1
    shares[slot] = chosen[slot];
  }
}
