// Which weights are read, in which order, and what they are applied to.
#pragma once

#include "types.h"

static int beats_of(ap_uint<2> kind) {
#pragma HLS inline
  return kind == TABLE ? TABLE_BEATS : kind == ROUTER ? ROUTER_BEATS : kind == ROUTED ? EXPERT_BEATS : COMMON_BEATS;
}

// Of the first section of a kind; the others follow without gaps.
static int first_beat_of(ap_uint<2> kind) {
#pragma HLS inline
  return kind == TABLE ? 0 : kind == ROUTER ? FIRST_ROUTER : kind == ROUTED ? FIRST_EXPERT : FIRST_COMMON;
}

static int steps_of(ap_uint<2> kind) {
#pragma HLS inline
  return kind == TABLE    ? 1
         : kind == ROUTER ? ROUTER_GROUPS
         : kind == ROUTED ? FIRST_GROUPS + SECOND_GROUPS
                          : COMMON_FIRST_GROUPS + SECOND_GROUPS;
}

// What is to be done: visits in order, and the panels that they have in all.
struct plan_t {
  visit_t visits[VISITS];
  int count;
  int steps;
};

static void add(plan_t &plan, ap_uint<2> kind, int number, int start, int count) {
#pragma HLS inline
  visit_t visit;
  visit.kind = kind;
  visit.number = number;
  visit.beat = first_beat_of(kind) + number * beats_of(kind);
  visit.start = start;
  visit.count = count;
  plan.visits[plan.count] = visit;
  plan.count++;
  plan.steps += steps_of(visit.kind);
}

// Tells every process behind what the visits are.
static void issue(const visit_t visits[VISITS], int count, hls::stream<section_t> sections[PORTS],
                  hls::stream<ap_uint<2> > &kinds, hls::stream<visit_t> &ahead) {
#pragma HLS inline off
  for (int number = 0; number < count; number++) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount max = VISITS
    const visit_t visit = visits[number];
    section_t section;
    section.beat = visit.beat;
    section.beats = beats_of(visit.kind);
    for (int port = 0; port < PORTS; port++) {
#pragma HLS unroll
      sections[port].write(section);
    }
    kinds.write(visit.kind);
    ahead.write(visit);
  }
}

// The panels of each visit: those that lead to the hidden layer (or to logits), then those behind it.
static void sequence(int visits, hls::stream<visit_t> &ahead, hls::stream<step_t> &steps) {
#pragma HLS inline off
  for (int number = 0; number < visits; number++) {
#pragma HLS loop_tripcount max = VISITS
    const visit_t visit = ahead.read();
    const bool two = visit.kind == ROUTED || visit.kind == COMMON;
    const int all = steps_of(visit.kind);
    const int firsts = two ? all - SECOND_GROUPS : all;
    for (int panel = 0; panel < all; panel++) {
#pragma HLS pipeline II = 1
      step_t step;
      step.kind = visit.kind;
      step.number = visit.number;
      step.second = panel >= firsts;
      step.last = panel == firsts - 1 || panel == all - 1;
      step.group = step.second ? panel - firsts : panel;
      step.tiles = visit.kind == TABLE    ? 0
                   : visit.kind == ROUTER ? ROW_TILES * DIGITS
                   : !step.second         ? ROW_TILES
                   : visit.kind == ROUTED ? HIDDEN_TILES
                                          : COMMON_HIDDEN_TILES;
      step.start = visit.start;
      step.count = visit.kind == TABLE ? 0 : visit.count;
      steps.write(step);
    }
  }
}
