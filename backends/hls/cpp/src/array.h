// The array: INPUTS numbers of a token times the weights of OUTPUTS channels, each cycle, for routers and experts alike.
#pragma once

#include "activation.h"

// Sums of a token that are ready.  They are made results LANES a cycle, while the next token is multiplied.
struct waiting_t {
  bool valid;
  ap_uint<2> kind;
  bool second;
  int group;
  int row;
  item_t item;
  sum_t sum[OUTPUTS];
  record_t channel[OUTPUTS];
};

// A digit of a router's weights: all of a weight where the array is as wide, else WEIGHT_BITS of it, the lowest first.
static tile_t digit_of(const router_tile_t &router, int digit) {
#pragma HLS inline
  tile_t tile;
  for (int output = 0; output < OUTPUTS; output++) {
#pragma HLS unroll
    for (int input = 0; input < INPUTS; input++) {
#pragma HLS unroll
      const ap_int<ROUTER_BITS> rest = router.code[output][input] >> (digit * WEIGHT_BITS);
      const ap_uint<WEIGHT_BITS> low = rest.range(WEIGHT_BITS - 1, 0);
      tile.code[output][input] = digit == DIGITS - 1 ? weight_t(rest) : weight_t(low);
    }
  }
  return tile;
}

// A panel for the array, while the array works on the one before; with a router's first one the numbers that are added
// for the choice, which lie in front of it.
static void fill(hls::stream<step_t> &steps, hls::stream<single_t> &selections, hls::stream<router_tile_t> &routers,
                 hls::stream<tile_t> &tiles, choice_t selection[TASKS][LOGIT_LENGTH], hls::stream<step_t> &now,
                 tile_t panel[PANEL_TILES]) {
#pragma HLS inline off
  const step_t step = steps.read();
  if (HAS_SELECTION && step.kind == ROUTER && step.group == 0)
    for (int expert = 0; expert < LOGIT_LENGTH; expert++) {
#pragma HLS pipeline II = 1
      selection[step.number][expert] = selections.read().record.range(25, 0);
    }
  router_tile_t router;
  int digit = 0;
  for (int tile = 0; tile < step.tiles; tile++) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount max = PANEL_TILES
    if (step.kind == ROUTER) {
      if (digit == 0) router = routers.read();
      panel[tile] = digit_of(router, digit);
      digit = digit == DIGITS - 1 ? 0 : digit + 1;
    } else {
      panel[tile] = tiles.read();
    }
  }
  now.write(step);
}

// LANES of the channels that wait: requantised, and activated, multiplied or added up, as their linear wants it.
//   held    act(gate) of the channels of a panel until those of `up` are there
//   hidden  codes between an expert's linears, a row for each token of its queue
//   totals  sums over the experts of each token
static void finish(const waiting_t &waiting, int turn, record_t scalars, const record_t table[512],
                   logit_t logits[TOKENS][LOGIT_LENGTH], wide_t held[HIDDEN_ROWS][OUTPUTS],
                   code_t hidden[HIDDEN_ROWS][HIDDEN_LENGTH], total_t totals[TOKENS][TOTAL_LENGTH]) {
#pragma HLS inline
  const bool gated = waiting.kind == ROUTED ? GATED : COMMON_GATED;
  const int token = waiting.item.token;
  for (int lane = 0; lane < LANES; lane++) {
#pragma HLS unroll
    const int channel = turn * LANES + lane;
    const int output = waiting.group * OUTPUTS + channel;
    const product_t value = scaled(waiting.sum[channel], waiting.channel[channel]);
    if (waiting.kind == ROUTER) {
      logits[token][output] = clamp<24>(value);
      continue;
    }
    const wide_t wide = clamp<16>(value);
    if (waiting.second) {
      totals[token][output] += ap_fixed<16, 16>(wide) * waiting.item.factor;
    } else if (gated && waiting.group % 2 == 0) {
      held[waiting.row][channel] = activate(wide, table);
    } else {
      const sum_t between = gated ? sum_t(held[waiting.row][channel] * wide) : sum_t(activate(wide, table));
      const int unit = gated ? waiting.group / 2 * OUTPUTS + channel : output;
      hidden[waiting.row][unit] = clamp<ROW_BITS>(scaled(between, scalars));
    }
  }
}

// A panel for all tokens of its queue.  A result waits until the next token is multiplied, of this panel or of the next
// one; behind the last panel of a linear nothing waits, because the next linear reads what this one wrote.
static void multiply(hls::stream<step_t> &now, const tile_t panel[PANEL_TILES], hls::stream<single_t> &singles,
                     hls::stream<channels_t> &records, const code_t rows[TOKENS][ROW_LENGTH],
                     const item_t queue[QUEUE_LENGTH], record_t table[512],
                     logit_t logits[TOKENS][LOGIT_LENGTH], wide_t held[HIDDEN_ROWS][OUTPUTS],
                     code_t hidden[HIDDEN_ROWS][HIDDEN_LENGTH], total_t totals[TOKENS][TOTAL_LENGTH]) {
#pragma HLS inline off
  static record_t scalars;
  static waiting_t waiting;
#pragma HLS array_partition variable = waiting.sum complete
#pragma HLS array_partition variable = waiting.channel complete
  const step_t step = now.read();
  if (step.kind == TABLE) {
    for (int entry = 0; entry < 512; entry++) {
#pragma HLS pipeline II = 1
      table[entry] = singles.read().record;
    }
    return;
  }
  const channels_t channels = records.read();
  if (step.kind != ROUTER && !step.second && step.group == 0) scalars = singles.read().record;
  sum_t sum[OUTPUTS];
#pragma HLS array_partition variable = sum complete
  const int digits = step.kind == ROUTER ? DIGITS : 1;
  const int cycles = greater(step.tiles, FINISH_CYCLES);  // of a row
  const int rounds = step.count + (step.last ? 1 : 0);
  int row = 0, tile = 0, input_tile = 0, digit = 0;
  for (int i = 0; i < rounds * cycles; i++) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount max = PANEL_CYCLES
// A token is once in a queue, and a linear's results are complete before the next linear begins.
#pragma HLS dependence variable = totals type = inter false
#pragma HLS dependence variable = hidden type = inter false
#pragma HLS dependence variable = held type = inter direction = RAW distance = FEWEST_CYCLES true
    if (waiting.valid && tile < FINISH_CYCLES) finish(waiting, tile, scalars, table, logits, held, hidden, totals);
    const bool end = tile == cycles - 1;
    if (row < step.count) {
      const item_t item = queue[step.start + row];
      if (tile < step.tiles) {
        code_t part[INPUTS];
#pragma HLS array_partition variable = part complete
        for (int input = 0; input < INPUTS; input++) {
#pragma HLS unroll
          const int number = input_tile * INPUTS + input;
          part[input] = step.second ? hidden[row][number] : rows[item.token][number];
        }
        for (int output = 0; output < OUTPUTS; output++) {
#pragma HLS unroll
          sum_t dot = 0;
          for (int input = 0; input < INPUTS; input++) {
#pragma HLS unroll
            dot += part[input] * panel[tile].code[output][input];
          }
          sum[output] = (tile == 0 ? bias_of(channels.channel[output]) : sum[output]) + (dot << (digit * WEIGHT_BITS));
        }
      }
      if (end) {
        waiting.kind = step.kind;
        waiting.second = step.second;
        waiting.group = step.group;
        waiting.row = row;
        waiting.item = item;
        for (int output = 0; output < OUTPUTS; output++) {
#pragma HLS unroll
          waiting.sum[output] = sum[output];
          waiting.channel[output] = channels.channel[output];
        }
      }
    }
    if (end) waiting.valid = row < step.count;
    input_tile = end ? 0 : digit == digits - 1 ? input_tile + 1 : input_tile;
    digit = end || digit == digits - 1 ? 0 : digit + 1;
    row = end ? row + 1 : row;
    tile = end ? 0 : tile + 1;
  }
}
