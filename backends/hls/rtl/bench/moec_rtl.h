// Runs the Verilated compute tile: what the test bench and programs that load the library call.
#pragma once
#include <cstdint>

extern "C" {

// Clock cycles of a call, one part after another.  `route` is of gates, logits and choices: 0 where lists are given.
struct moec_rtl_cycles {
  uint64_t rows, table, route, experts, result;
};

// The weighted results of experts for rows of tokens.
//
//   rows     rows of x, in words of memory
//   weights  for each port, the memory of all parameters
//   visits   how often weights of an expert are loaded; visit v is of expert[v] (routed experts come first, then shared
//            ones) and uses items first[v] to first[v + 1] - 1, at least one
//   token, weight   of the items: the number of a row, and what the expert's result is multiplied with
//   result   rows of y, in words of memory
//   cycles   may be null
//
// Returns 0, or 1 where a number is out of range.
int moec_rtl(const void *rows, const void *const *weights, int32_t tokens, int32_t visits, const int32_t *expert,
             const int32_t *first, const int32_t *token, const int32_t *weight, void *result, moec_rtl_cycles *cycles);

// The experts of rows and their weights, [tokens, SLOTS] both, the largest logit first.
//
//   tasks    of the rows; null where there is one gate
//   cycles   of all gates' weights and logits, and of the choice: two numbers; may be null
//
// Returns 0, or 1 where a number is out of range or the tile has no router.
int moec_rtl_route(const void *rows, const int32_t *tasks, const void *const *weights, int32_t tokens, int32_t *experts,
                   int32_t *factors, uint64_t *cycles);

// A whole call: routes the rows, queues them by expert, and gives the rows of y.  The parameters of `moec_csim`, and:
//
//   cycles   may be null
//
// Returns 0, or 1 where a number is out of range or the tile has no router.
int moec_rtl_call(const void *rows, const int32_t *tasks, const void *const *weights, void *result, int32_t tokens,
                  moec_rtl_cycles *cycles);

// The logits of rows by the gate of a task, [tokens, EXPERTS], each with 16 fraction bits.
//
//   cycles   of the gate's weights and of all rows; may be null
//
// Returns 0, or 1 where a number is out of range or the tile has no router.
int moec_rtl_logits(const void *rows, const void *const *weights, int32_t tokens, int32_t task, int32_t *logits,
                    uint64_t *cycles);
}
