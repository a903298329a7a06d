// What travels through the kernel.
#pragma once

#include <ap_fixed.h>
#include <ap_int.h>
#include <hls_stream.h>

#include "config.h"

constexpr int greater(int a, int b) { return a > b ? a : b; }
constexpr int lesser(int a, int b) { return a < b ? a : b; }

// Of a call's buffers: none needs a first value, which not every memory has; a simulation's stack is too small for them.
#ifdef __SYNTHESIS__
#define ON_CHIP
#else
#define ON_CHIP static
#endif

typedef ap_uint<PORT_BITS> word_t;
typedef ap_int<ROW_BITS> code_t;             // a number of a token, and of an expert's hidden layer
typedef ap_int<DIGIT_BITS> weight_t;         // a weight as the array takes it: an expert's, or a digit of a router's
typedef ap_int<ACCUMULATOR_BITS> sum_t;      // bias + sum of products
typedef ap_int<16> wide_t;                   // pre-activation, activation, an expert's result
typedef ap_int<ACCUMULATOR_BITS + 18> product_t;  // a sum times a multiplier of 17 bits, and rounded
typedef ap_int<24> logit_t;                  // 16 fraction bits
typedef ap_int<26> choice_t;                 // a score and what is added to it for the choice
typedef ap_int<25> share_t;                  // a weight of an expert, 16 fraction bits
typedef ap_uint<64> record_t;                // of a channel, of a table's entry, of an expert's scalars
typedef ap_uint<17> multiplier_t;
typedef ap_uint<6> shift_t;

// Numbers whose point does not depend on data.
typedef ap_fixed<18, 18 - FACTOR_FRACTION> factor_t;  // what an expert's result is multiplied with
typedef ap_fixed<48, 48 - FACTOR_FRACTION> total_t;   // sum of an expert's results times their factors, exact
typedef ap_fixed<16, 16, AP_RND, AP_SAT_SYM> result_t;

// Weights that the array takes in one cycle.
struct tile_t {
  static const int FIELDS = OUTPUTS * INPUTS;
  weight_t code[OUTPUTS][INPUTS];
};

// Weights of a router before they are cut into digits.
struct router_tile_t {
  static const int FIELDS = OUTPUTS * INPUTS;
  ap_int<ROUTER_BITS> code[OUTPUTS][INPUTS];
};

// Multipliers, shifts and biases of the channels of a tile.
struct channels_t {
  static const int FIELDS = OUTPUTS;
  record_t channel[OUTPUTS];
};

struct single_t {
  static const int FIELDS = 1;
  record_t record;
};

// An entry of a queue: a token, and what the expert's result is multiplied with.
struct item_t {
  ap_uint<TOKEN_BITS> token;
  factor_t factor;
};

enum kind_t { TABLE = 0, ROUTER = 1, ROUTED = 2, COMMON = 3 };

// A section of the memory of weights, and the tokens that it is applied to: items `start` to `start + count` of the
// queue.  `number` is a router's task.
struct visit_t {
  ap_uint<2> kind;
  int number;
  int beat;
  int start;
  int count;
};

// Beats that every port reads.
struct section_t {
  int beat;
  int beats;
};

// A panel, that is the weights of OUTPUTS channels, and the tokens that it is applied to.
//   second  the linear behind the hidden layer
//   last    of its linear: what comes next reads what this one writes
struct step_t {
  ap_uint<2> kind;
  int number;
  bool second;
  bool last;
  int group;
  int tiles;
  int start;
  int count;
};
