// From logits to queues: the largest choices of each token, their weights, and which expert has which tokens.
#pragma once

#include "schedule.h"
#include "scores.h"

// The tokens of each task, one task behind the other, and every token: what gates are applied to, and shared experts.
static void list_tokens(const int task[TOKENS], int tokens, item_t queue[QUEUE_LENGTH], plan_t &plan) {
#pragma HLS inline off
  item_t item;
  item.factor = 1;
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
  int listed = 0;
  for (int number = 0; number < TASKS; number++) {
    const int first = listed;
    for (int token = 0; token < tokens; token++) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount max = TOKENS
      item.token = token;
      if (task[token] == number) queue[listed++] = item;
    }
    if (listed > first) add(plan, ROUTER, number, first, listed - first);
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
    // Logits have the order of their scores, and do not saturate.
    const choice_t choice = HAS_SELECTION ? choice_t(score + selection[expert]) : choice_t(logits[expert]);
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

// What a slot of a token holds until all queues' lengths are known; no expert where the token's task is none.
struct pick_t {
  bool valid;
  ap_uint<EXPERT_BITS> expert;
  factor_t factor;
};

// Fills `picks`, and counts how many tokens each expert has.
static void pick(const logit_t logits[TOKENS][LOGIT_LENGTH], const choice_t selection[TASKS][LOGIT_LENGTH],
                 const int task[TOKENS], int tokens, pick_t picks[TOKENS * SLOTS], int counts[EXPERTS]) {
#pragma HLS inline off
  for (int expert = 0; expert < EXPERTS; expert++) {
#pragma HLS pipeline II = 1
    counts[expert] = 0;
  }
  for (int token = 0; token < tokens; token++) {
#pragma HLS loop_tripcount max = TOKENS
    ap_uint<EXPERT_BITS> experts[SLOTS];
    share_t shares[SLOTS];
    const int number = TASKS == 1 ? 0 : task[token];
    const bool valid = number >= 0 && number < TASKS;
    if (valid) choose(logits[token], selection[number], experts, shares);
    for (int slot = 0; slot < SLOTS; slot++) {
#pragma HLS pipeline II = 1
      pick_t made;
      made.valid = valid;
      made.expert = valid ? experts[slot] : ap_uint<EXPERT_BITS>(0);
      made.factor.range(17, 0) = valid ? clamp<18>(scaled(shares[slot], FACTOR_RECORD)) : 0;
      picks[token * SLOTS + slot] = made;
      if (valid) counts[made.expert]++;  // of a token, no expert comes twice
    }
  }
}

// Expert by expert: queues one behind the other, no visit for an expert that nobody chose.
static void queue_by_expert(const pick_t picks[TOKENS * SLOTS], int tokens, const int counts[EXPERTS],
                            item_t queue[QUEUE_LENGTH], plan_t &plan) {
#pragma HLS inline off
  int next[EXPERTS], first = 0;
  for (int expert = 0; expert < EXPERTS; expert++) {
#pragma HLS pipeline II = 1
    next[expert] = first;
    if (counts[expert] > 0) add(plan, ROUTED, expert, first, counts[expert]);
    first += counts[expert];
  }
  for (int token = 0; token < tokens; token++) {
#pragma HLS loop_tripcount max = TOKENS
    for (int slot = 0; slot < SLOTS; slot++) {
#pragma HLS pipeline II = 1
      const pick_t pick = picks[token * SLOTS + slot];
      item_t item;
      item.token = token;
      item.factor = pick.factor;
      if (pick.valid) queue[next[pick.expert]++] = item;
    }
  }
  for (int expert = 0; expert < SHARED; expert++)
    if (tokens > 0) add(plan, COMMON, expert, EVERY_TOKEN, tokens);
}

// Token by token: a visit for each of its experts.
static void queue_by_token(const pick_t picks[TOKENS * SLOTS], int tokens, item_t queue[QUEUE_LENGTH], plan_t &plan) {
#pragma HLS inline off
  for (int token = 0; token < tokens; token++) {
#pragma HLS loop_tripcount max = TOKENS
    for (int slot = 0; slot < SLOTS; slot++) {
#pragma HLS pipeline II = 1
      const pick_t pick = picks[token * SLOTS + slot];
      item_t item;
      item.token = token;
      item.factor = pick.factor;
      queue[token * SLOTS + slot] = item;
      if (pick.valid) add(plan, ROUTED, pick.expert, token * SLOTS + slot, 1);
    }
    for (int expert = 0; expert < SHARED; expert++) add(plan, COMMON, expert, EVERY_TOKEN + token, 1);
  }
}

// From the logits of all tokens to what the experts are to do.
static void route(const logit_t logits[TOKENS][LOGIT_LENGTH], const choice_t selection[TASKS][LOGIT_LENGTH],
                  const int task[TOKENS], int tokens, pick_t picks[TOKENS * SLOTS], item_t queue[QUEUE_LENGTH],
                  plan_t &plan) {
#pragma HLS inline off
  int counts[EXPERTS];
  pick(logits, selection, task, tokens, picks, counts);
  if (EXPERT_MAJOR)
    queue_by_expert(picks, tokens, counts, queue, plan);
  else
    queue_by_token(picks, tokens, queue, plan);
}
