// The Verilated compute tile behind a C interface: streams parameters and rows into it as fast as it takes them.
#include "moec_rtl.h"

#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "Vmoec_tile.h"
#include "tile.h"
#include "verilated.h"

double sc_time_stamp() { return 0; }

namespace {

const uint64_t STUCK = uint64_t(1) << 32;  // no call takes so many cycles

// A part of the memory of parameters: beats, and what kind of weights they are.
struct Section {
  int kind;
  int64_t start, beats;
};

struct Item {
  int32_t token, weight;
  bool last;
};

int32_t signed_field(const void *bytes, int place, int bits) {
  uint64_t value = 0;
  for (int i = 0; i < bits; i++) {
    const int at = place + i;
    value |= uint64_t(static_cast<const uint8_t *>(bytes)[at / 8] >> (at % 8) & 1) << i;
  }
  return static_cast<int32_t>(static_cast<int64_t>(value << (64 - bits)) >> (64 - bits));
}

class Tile {
 public:
  Tile() : context_(new VerilatedContext), top_(new Vmoec_tile(context_.get())) {
    top_->rst = 1;
    for (int i = 0; i < 4; i++) tick();
    top_->rst = 0;
    wait();
  }

  ~Tile() { top_->final(); }

  uint64_t load_rows(const uint8_t *rows, int32_t tokens) {
    const uint64_t from = cycle_;
    top_->row_write = 1;
    for (int64_t word = 0; word < int64_t(tokens) * tile::INPUT_WORDS; word++) {
      top_->row_address = word;
      std::memcpy(&top_->row_word, rows + word * tile::PORT_BYTES, tile::PORT_BYTES);
      tick();
    }
    top_->row_write = 0;
    return cycle_ - from;
  }

  // Streams sections and items until all are taken and the tile is idle.  Returns the cycles up to the last step.
  uint64_t run(const void *const *weights, const std::vector<Section> &sections, const std::vector<Item> &items) {
    const uint64_t from = cycle_;
    size_t section = 0, item = 0;
    int64_t beat = 0;
    do {
      top_->beat_valid = section < sections.size();
      if (top_->beat_valid) {
        top_->beat_kind = sections[section].kind;
        offer(weights, sections[section].start + beat);
      }
      top_->item_valid = item < items.size();
      if (top_->item_valid) {
        top_->item_token = items[item].token;
        top_->item_weight = items[item].weight & ((1 << tile::WEIGHT_BITS) - 1);
        top_->item_last = items[item].last;
      }
      top_->clk = 0;
      top_->eval();
      const bool beat_taken = top_->beat_valid && top_->beat_ready, item_taken = top_->item_valid && top_->item_ready;
      tick();
      if (beat_taken && ++beat == sections[section].beats) {
        beat = 0;
        section++;
      }
      item += item_taken;
      if (cycle_ - from > STUCK) return 0;
    } while (section < sections.size() || item < items.size() || !top_->idle);
    top_->beat_valid = top_->item_valid = 0;
    return cycle_ - from;
  }

  // The sums of all tokens, rounded; they are zero afterwards.
  uint64_t finish(uint8_t *result, int32_t tokens) {
    const uint64_t from = cycle_;
    top_->finish = 1;
    top_->finish_tokens = tokens;
    const int64_t words = int64_t(tokens) * tile::RESULT_STRIDE;
    for (int64_t word = 0; word < words;) {
      tick();
      top_->finish = 0;
      if (!top_->result_valid) continue;
      uint8_t *row = result + word / tile::RESULT_STRIDE * tile::OUTPUT_WORDS * tile::PORT_BYTES;
      std::memcpy(row + word % tile::RESULT_STRIDE * tile::LANES * 2, &top_->result, tile::LANES * 2);
      word++;
    }
    return cycle_ - from;
  }

  void wait() {
    do tick();
    while (!top_->idle);
  }

  std::vector<int32_t> logits;

 private:
  void offer(const void *const *weights, int64_t beat) {
    for (int port = 0; port < tile::PORTS; port++) {
      const uint8_t *from = static_cast<const uint8_t *>(weights[port]) + beat * tile::PORT_BYTES;
      std::memcpy(reinterpret_cast<uint8_t *>(&top_->beat) + port * tile::PORT_BYTES, from, tile::PORT_BYTES);
    }
  }

  void tick() {
    top_->clk = 0;
    top_->eval();
    top_->clk = 1;
    top_->eval();
    cycle_++;
#if MOEC_ROUTES
    for (int lane = 0; top_->logits_valid && lane < tile::LANES; lane++)
      logits.push_back(signed_field(&top_->logits, lane * tile::LOGIT_BITS, tile::LOGIT_BITS));
#endif
  }

  std::unique_ptr<VerilatedContext> context_;
  std::unique_ptr<Vmoec_tile> top_;
  uint64_t cycle_ = 0;
};

std::mutex one_at_a_time;

Tile &shared_tile() {
  static Tile tile;
  return tile;
}

}  // namespace

int moec_rtl(const void *rows, const void *const *weights, int32_t tokens, int32_t visits, const int32_t *expert,
             const int32_t *first, const int32_t *token, const int32_t *weight, void *result,
             moec_rtl_cycles *cycles) {
  if (tokens < 0 || tokens > tile::TOKENS || visits < 0) return 1;
  std::vector<Section> sections;
  std::vector<Item> items;
  for (int32_t visit = 0; visit < visits; visit++) {
    const int64_t number = expert[visit];
    if (number < 0 || number >= tile::EXPERTS + tile::SHARED || first[visit + 1] <= first[visit]) return 1;
    if (number < tile::EXPERTS)
      sections.push_back({tile::ROUTED, tile::ROUTED_START + number * tile::ROUTED_BEATS, tile::ROUTED_BEATS});
    else
      sections.push_back({tile::COMMON, tile::COMMON_START + (number - tile::EXPERTS) * tile::COMMON_BEATS,
                          tile::COMMON_BEATS});
    for (int32_t item = first[visit]; item < first[visit + 1]; item++) {
      const int32_t most = (1 << (tile::WEIGHT_BITS - 1)) - 1;
      if (token[item] < 0 || token[item] >= tokens || weight[item] < -most || weight[item] > most) return 1;
      items.push_back({token[item], weight[item], item + 1 == first[visit + 1]});
    }
  }
  const std::lock_guard<std::mutex> guard(one_at_a_time);
  Tile &it = shared_tile();
  moec_rtl_cycles taken = {};
  taken.rows = it.load_rows(static_cast<const uint8_t *>(rows), tokens);
  if (tile::TABLE_BEATS) {
    const uint64_t end = it.run(weights, {{tile::TABLE, 0, tile::TABLE_BEATS}}, {});
    taken.table = end;
  }
  if (visits) taken.experts = it.run(weights, sections, items);
  if (tokens) {
    std::memset(result, 0, size_t(tokens) * tile::OUTPUT_WORDS * tile::PORT_BYTES);
    taken.result = it.finish(static_cast<uint8_t *>(result), tokens);
    it.wait();
  }
  if (cycles) *cycles = taken;
  return 0;
}

int moec_rtl_logits(const void *rows, const void *const *weights, int32_t tokens, int32_t task, int32_t *logits,
                    uint64_t *cycles) {
#if MOEC_ROUTES
  if (tokens < 0 || tokens > tile::TOKENS || task < 0 || task >= tile::TASKS) return 1;
  const std::lock_guard<std::mutex> guard(one_at_a_time);
  Tile &it = shared_tile();
  it.load_rows(static_cast<const uint8_t *>(rows), tokens);
  it.logits.clear();
  std::vector<Item> items;
  for (int32_t token = 0; token < tokens; token++) items.push_back({token, 0, token + 1 == tokens});
  const Section gate = {tile::GATE, tile::GATE_START + int64_t(task) * tile::GATE_BEATS, tile::GATE_BEATS};
  const uint64_t taken = tokens ? it.run(weights, {gate}, items) : 0;
  for (int32_t token = 0; token < tokens; token++)
    for (int32_t i = 0; i < tile::EXPERTS; i++)
      logits[int64_t(token) * tile::EXPERTS + i] = it.logits[int64_t(token) * tile::LOGITS + i];
  if (cycles) *cycles = taken;
  return 0;
#else
  (void)rows, (void)weights, (void)tokens, (void)task, (void)logits, (void)cycles;
  return 1;
#endif
}
