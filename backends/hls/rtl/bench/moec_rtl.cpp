// The Verilated compute tile behind a C interface: streams parameters and rows into it as fast as it takes them.
#include "moec_rtl.h"

#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
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

#if MOEC_CHOOSES
  // Lets the router go over the logits of all tokens.  The lists are [tokens, SLOTS].
  uint64_t choose(int32_t tokens, int32_t *experts, int32_t *factors) {
    const uint64_t from = cycle_;
    top_->choose = 1;
    top_->finish_tokens = tokens;
    for (int64_t named = 0; named < tokens * tile::SLOTS;) {
      tick();
      top_->choose = 0;
      if (!top_->choice_valid) continue;
      experts[named] = top_->choice_expert;
      factors[named++] = signed_field(&top_->choice_weight, 0, tile::WEIGHT_BITS);
    }
    return cycle_ - from;
  }
#endif

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

namespace {

// The logits of the tokens of a task, by its gate.
uint64_t run_gate(Tile &it, const void *const *weights, int32_t task, const std::vector<int32_t> &tokens) {
  std::vector<Item> items;
  for (const int32_t token : tokens) items.push_back({token, 0, token == tokens.back()});
  const Section gate = {tile::GATE, tile::GATE_START + int64_t(task) * tile::GATE_BEATS, tile::GATE_BEATS};
  return tokens.empty() ? 0 : it.run(weights, {gate}, items);
}

}  // namespace

int moec_rtl_logits(const void *rows, const void *const *weights, int32_t tokens, int32_t task, int32_t *logits,
                    uint64_t *cycles) {
#if MOEC_ROUTES
  if (tokens < 0 || tokens > tile::TOKENS || task < 0 || task >= tile::TASKS) return 1;
  const std::lock_guard<std::mutex> guard(one_at_a_time);
  Tile &it = shared_tile();
  it.load_rows(static_cast<const uint8_t *>(rows), tokens);
  it.logits.clear();
  std::vector<int32_t> all(tokens);
  std::iota(all.begin(), all.end(), 0);
  const uint64_t taken = run_gate(it, weights, task, all);
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

int moec_rtl_route(const void *rows, const int32_t *tasks, const void *const *weights, int32_t tokens, int32_t *experts,
                   int32_t *factors, uint64_t *cycles) {
#if MOEC_CHOOSES
  if (tokens < 0 || tokens > tile::TOKENS) return 1;
  std::vector<std::vector<int32_t>> queues(tile::TASKS);
  for (int32_t token = 0; token < tokens; token++) {
    const int32_t task = tasks ? tasks[token] : 0;
    if (task < 0 || task >= tile::TASKS) return 1;
    queues[task].push_back(token);
  }
  const std::lock_guard<std::mutex> guard(one_at_a_time);
  Tile &it = shared_tile();
  it.load_rows(static_cast<const uint8_t *>(rows), tokens);
  uint64_t taken[2] = {};
  for (int32_t task = 0; task < tile::TASKS; task++) taken[0] += run_gate(it, weights, task, queues[task]);
  it.logits.clear();
  if (tokens) taken[1] = it.choose(tokens, experts, factors);
  if (cycles) std::memcpy(cycles, taken, sizeof taken);
  return 0;
#else
  (void)rows, (void)tasks, (void)weights, (void)tokens, (void)experts, (void)factors, (void)cycles;
  return 1;
#endif
}

int moec_rtl_call(const void *rows, const int32_t *tasks, const void *const *weights, void *result, int32_t tokens,
                  moec_rtl_cycles *cycles) {
  if (tokens < 0 || tokens > tile::TOKENS) return 1;
  std::vector<int32_t> experts(tokens * tile::SLOTS), factors(experts.size());
  uint64_t routing[2] = {};
  if (moec_rtl_route(rows, tasks, weights, tokens, experts.data(), factors.data(), routing)) return 1;
  std::vector<int32_t> visited, first = {0}, token, weight;
  const auto end_visit = [&](int32_t expert) {
    if (int32_t(token.size()) == first.back()) return;
    visited.push_back(expert);
    first.push_back(int32_t(token.size()));
  };
  for (int32_t expert = 0; expert < tile::EXPERTS; expert++) {
    for (size_t i = 0; i < experts.size(); i++)
      if (experts[i] == expert) {
        token.push_back(int32_t(i / tile::SLOTS));
        weight.push_back(factors[i]);
      }
    end_visit(expert);
  }
  for (int32_t expert = 0; expert < tile::SHARED; expert++) {
    for (int32_t i = 0; i < tokens; i++) {
      token.push_back(i);
      weight.push_back(1 << tile::WEIGHT_FRACTION);
    }
    end_visit(int32_t(tile::EXPERTS) + expert);
  }
  const int wrong = moec_rtl(rows, weights, tokens, int32_t(visited.size()), visited.data(), first.data(), token.data(),
                             weight.data(), result, cycles);
  if (cycles) cycles->route = routing[0] + routing[1];
  return wrong;
}
