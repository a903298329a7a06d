// From the ports to tiles and records, and between rows in memory and rows on the chip.
#pragma once

#include "arithmetic.h"

// Reads the sections of all visits through one port: long bursts, as far ahead as its stream is deep.
static void fetch(const word_t *port, int visits, hls::stream<section_t> &sections, hls::stream<word_t> &words) {
#pragma HLS inline off
  for (int visit = 0; visit < visits; visit++) {
#pragma HLS loop_tripcount max = VISITS
    const section_t section = sections.read();
    for (int beat = 0; beat < section.beats; beat++) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount max = EXPERT_BEATS
      words.write(port[section.beat + beat]);
    }
  }
}

template <int BITS>
static void place(tile_t &tile, int field, ap_uint<BITS> bits) {
#pragma HLS inline
  tile.code[field / INPUTS][field % INPUTS] = ap_int<BITS>(bits);
}

template <int BITS>
static void place(router_tile_t &tile, int field, ap_uint<BITS> bits) {
#pragma HLS inline
  tile.code[field / INPUTS][field % INPUTS] = ap_int<BITS>(bits);
}

template <int BITS>
static void place(channels_t &channels, int field, ap_uint<BITS> bits) {
#pragma HLS inline
  channels.channel[field] = bits;
}

template <int BITS>
static void place(single_t &single, int, ap_uint<BITS> bits) {
#pragma HLS inline
  single.record = bits;
}

// Cuts beats into groups of fields of BITS bits.  A group is several beats, or a beat several groups; what is left of
// the last beat is dropped.
template <int BITS, class GROUP>
static void cut(hls::stream<word_t> words[PORTS], int groups, hls::stream<GROUP> &cuts) {
#pragma HLS inline off
  const int beats = greater(1, GROUP::FIELDS * BITS / BEAT_BITS);   // of a group
  const int slices = greater(1, BEAT_BITS / (GROUP::FIELDS * BITS)); // groups of a beat
  const int fields = GROUP::FIELDS / beats;                          // that come at once
  word_t beat[PORTS];
#pragma HLS array_partition variable = beat complete
  GROUP group;
  int part = 0, slice = 0;
  for (int i = 0; i < groups * beats; i++) {
#pragma HLS pipeline II = 1
    if (slice == 0)
      for (int port = 0; port < PORTS; port++) {
#pragma HLS unroll
        beat[port] = words[port].read();
      }
    for (int field = 0; field < fields; field++) {
#pragma HLS unroll
      const int bit = (slice * fields + field) * BITS;
      const word_t word = beat[bit / PORT_BITS];
      place<BITS>(group, part * fields + field, word.range(bit % PORT_BITS + BITS - 1, bit % PORT_BITS));
    }
    if (part == beats - 1) cuts.write(group);
    part = part == beats - 1 ? 0 : part + 1;
    slice = slice == slices - 1 ? 0 : slice + 1;
  }
}

// The parts of each section, in their order in memory.
static void unpack(int visits, hls::stream<ap_uint<2> > &kinds, hls::stream<word_t> words[PORTS],
                   hls::stream<single_t> &singles, hls::stream<channels_t> &channels, hls::stream<single_t> &selections,
                   hls::stream<router_tile_t> &routers, hls::stream<tile_t> &tiles) {
#pragma HLS inline off
  for (int visit = 0; visit < visits; visit++) {
#pragma HLS loop_tripcount max = VISITS
    const ap_uint<2> kind = kinds.read();
    if (kind == TABLE) {
      cut<64>(words, 512, singles);
    } else if (kind == ROUTER) {
      cut<64>(words, ROUTER_GROUPS, channels);
      if (HAS_SELECTION) cut<64>(words, LOGIT_LENGTH, selections);
      cut<ROUTER_BITS>(words, ROUTER_GROUPS * ROW_TILES, routers);
    } else {
      const int groups = kind == ROUTED ? FIRST_GROUPS : COMMON_FIRST_GROUPS;
      const int behind = kind == ROUTED ? HIDDEN_TILES : COMMON_HIDDEN_TILES;
      cut<64>(words, 1, singles);
      cut<64>(words, groups, channels);
      cut<WEIGHT_BITS>(words, groups * ROW_TILES, tiles);
      cut<64>(words, SECOND_GROUPS, channels);
      cut<WEIGHT_BITS>(words, SECOND_GROUPS * behind, tiles);
    }
  }
}

static void load_rows(const word_t *from, int tokens, code_t rows[TOKENS][ROW_LENGTH]) {
#pragma HLS inline off
  const int codes = PORT_BITS / ROW_BITS;
  for (int token = 0; token < tokens; token++) {
#pragma HLS loop_tripcount max = TOKENS
    for (int number = 0; number < INPUT_WORDS; number++) {
#pragma HLS pipeline II = 1
      const word_t word = from[token * INPUT_WORDS + number];
      for (int code = 0; code < codes; code++) {
#pragma HLS unroll
        rows[token][number * codes + code] = word.range(code * ROW_BITS + ROW_BITS - 1, code * ROW_BITS);
      }
    }
  }
}

static void clear_totals(int tokens, total_t totals[TOKENS][TOTAL_LENGTH]) {
#pragma HLS inline off
  for (int token = 0; token < tokens; token++) {
#pragma HLS loop_tripcount max = TOKENS
    for (int group = 0; group < TOTAL_LENGTH / LANES; group++) {
#pragma HLS pipeline II = 1
      for (int lane = 0; lane < LANES; lane++) {
#pragma HLS unroll
        totals[token][group * LANES + lane] = 0;
      }
    }
  }
}

// The only rounding of the sum over a token's experts.
static void store_rows(const total_t totals[TOKENS][TOTAL_LENGTH], int tokens, word_t *to) {
#pragma HLS inline off
  const int codes = PORT_BITS / 16;
  for (int token = 0; token < tokens; token++) {
#pragma HLS loop_tripcount max = TOKENS
    for (int number = 0; number < OUTPUT_WORDS; number++) {
#pragma HLS pipeline
      word_t word = 0;
      for (int code = 0; code < codes; code++) {
#pragma HLS unroll
        const int channel = number * codes + code;
        const result_t result = channel < WIDTH ? totals[token][channel] : total_t(0);
        word.range(code * 16 + 15, code * 16) = result.range(15, 0);
      }
      to[token * OUTPUT_WORDS + number] = word;
    }
  }
}
