// From logits to queues: the largest choices of each token, their weights, and which expert has which tokens.
#pragma once

#include "schedule.h"
#include "scores.h"

// The tokens of each task, and behind them every token: what gates are applied to, and shared experts.
static void list_tokens(const int task[TOKENS], int tokens, item_t queue[QUEUE_LENGTH], plan_t &plan) {
#pragma HLS inline off
  item_t item;
  item.factor = factor_t(1) << FACTOR_FRACTION;
  for (int token = 0; token < tokens; token++) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount max = TOKENS
    item.token = token;
    queue[EVERY_TOKEN + token] = item;
  }
  if (TASKS == 1) {
    if (tokens > 0) add(plan, ROUTER, 0, EVERY_TOKEN, tokens);
    return;
  }
  for (int number = 0; number < TASKS; number++) {
    int count = 0;
    for (int token = 0; token < tokens; token++) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount max = TOKENS
      item.token = token;
      if (task[token] == number) queue[number * TOKENS + count++] = item;
    }
    if (count > 0) add(plan, ROUTER, number, number * TOKENS, count);
  }
}

// The experts of a token, the largest choice first, ties to the lower number.
static void choose(const logit_t logits[LOGIT_LENGTH], const choice_t selection[LOGIT_LENGTH],
                   ap_uint<EXPERT_BITS> experts[SLOTS], share_t shares[SLOTS]) {
#pragma HLS inline off
  choice_t best[SLOTS];
  logit_t scores[SLOTS];
  pass_t pass;
#pragma HLS array_partition variable = best complete
#pragma HLS array_partition variable = scores complete
  for (int slot = 0; slot < SLOTS; slot++) {
#pragma HLS unroll
    best[slot] = -(1 << 25);  // below every choice
    scores[slot] = 0;
    experts[slot] = 0;
  }
  for (int expert = 0; expert < EXPERTS; expert++) {
#pragma HLS pipeline
    const logit_t score = score_of(logits[expert]);
    const choice_t choice = choice_t(score) + (HAS_SELECTION ? selection[expert] : choice_t(0));
    see(pass, logits[expert], expert == 0);
    for (int slot = SLOTS - 1; slot >= 0; slot--) {
#pragma HLS unroll
      if (choice > best[slot]) {
        const bool lower = slot > 0 && choice > best[greater(slot - 1, 0)];
        best[slot] = lower ? best[greater(slot - 1, 0)] : choice;
        scores[slot] = lower ? scores[greater(slot - 1, 0)] : score;
        experts[slot] = lower ? experts[greater(slot - 1, 0)] : ap_uint<EXPERT_BITS>(expert);
      }
    }
  }
  weigh(scores, pass, shares);
}

// Fills the experts' queues and lists the visits: expert by expert without those that nobody chose, or token by token.
static void route(const logit_t logits[TOKENS][LOGIT_LENGTH], const choice_t selection[TASKS][LOGIT_LENGTH],
                  const int task[TOKENS], int tokens, item_t queue[QUEUE_LENGTH], plan_t &plan) {
#pragma HLS inline off
  int filled[EXPERTS];
  for (int expert = 0; expert < EXPERTS; expert++) {
#pragma HLS pipeline II = 1
    filled[expert] = 0;
  }
  for (int token = 0; token < tokens; token++) {
#pragma HLS loop_tripcount max = TOKENS
    ap_uint<EXPERT_BITS> experts[SLOTS];
    share_t shares[SLOTS];
    const int number = TASKS == 1 ? 0 : task[token];
    if (number >= 0 && number < TASKS) {
      choose(logits[token], selection[number], experts, shares);
      for (int slot = 0; slot < SLOTS; slot++) {
#pragma HLS pipeline II = 1
        const int expert = experts[slot];
        item_t item;
        item.token = token;
        item.factor = clamp<18>(scaled(shares[slot], FACTOR_RECORD));
        const int place = EXPERT_MAJOR ? expert * TOKENS + filled[expert] : token * SLOTS + slot;
        queue[place] = item;
        filled[expert]++;
        if (!EXPERT_MAJOR) add(plan, ROUTED, expert, place, 1);
      }
    }
    if (!EXPERT_MAJOR)
      for (int expert = 0; expert < SHARED; expert++) add(plan, COMMON, expert, EVERY_TOKEN + token, 1);
  }
  if (EXPERT_MAJOR) {
    for (int expert = 0; expert < EXPERTS; expert++) {
#pragma HLS pipeline II = 1
      if (filled[expert] > 0) add(plan, ROUTED, expert, expert * TOKENS, filled[expert]);
    }
    for (int expert = 0; expert < SHARED; expert++)
      if (tokens > 0) add(plan, COMMON, expert, EVERY_TOKEN, tokens);
  }
}
