// Runs the tile in Verilator on the cases of ../tb/vectors and compares results and clock cycles: `testbench`, in the
// folder rtl/.  Returns 0 where all agree.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "../tb/cases.h"
#include "moec_rtl.h"
#include "tile.h"

namespace {

template <class Number>
std::vector<Number> read_file(const std::string &path) {
  std::FILE *file = std::fopen(path.c_str(), "rb");
  if (!file) {
    std::fprintf(stderr, "cannot read %s\n", path.c_str());
    std::exit(2);
  }
  std::vector<Number> numbers;
  Number block[4096];
  for (size_t got; (got = std::fread(block, sizeof(Number), 4096, file)) > 0;)
    numbers.insert(numbers.end(), block, block + got);
  std::fclose(file);
  return numbers;
}

// A port's memory with all experts, of a file with the first DISTINCT ones.
std::vector<uint8_t> read_weights(const std::string &path) {
  const std::vector<uint8_t> file = read_file<uint8_t>(path);
  const size_t before = tile::ROUTED_START * tile::PORT_BYTES, one = tile::ROUTED_BEATS * tile::PORT_BYTES;
  if (file.size() < before + DISTINCT * one) {
    std::fprintf(stderr, "%s is too short\n", path.c_str());
    std::exit(2);
  }
  std::vector<uint8_t> bytes(file.begin(), file.begin() + before);
  for (int expert = 0; expert < tile::EXPERTS; expert++) {
    const auto first = file.begin() + before + expert % DISTINCT * one;
    bytes.insert(bytes.end(), first, first + one);
  }
  bytes.insert(bytes.end(), file.begin() + before + DISTINCT * one, file.end());
  return bytes;
}

// visits/CASE.bin: how many visits and items there are, the cycles of each part, the lists that `moec_rtl` takes.
struct Visits {
  moec_rtl_cycles cycles;
  std::vector<int32_t> expert, first, token, weight;
};

Visits read_visits(const std::string &path) {
  const std::vector<int64_t> file = read_file<int64_t>(path);
  const int64_t visits = file.at(0), items = file.at(1);
  Visits found;
  found.cycles = {uint64_t(file.at(2)), uint64_t(file.at(3)), uint64_t(file.at(4)), uint64_t(file.at(5)),
                  uint64_t(file.at(6))};
  auto next = file.begin() + 7;
  const auto take = [&](std::vector<int32_t> &list, int64_t count) {
    list.assign(next, next + count);
    next += count;
  };
  take(found.expert, visits);
  take(found.first, visits + 1);
  take(found.token, items);
  take(found.weight, items);
  return found;
}

bool same(const char *part, uint64_t taken, uint64_t expected) {
  std::printf("  %-8s %10llu cycles", part, static_cast<unsigned long long>(taken));
  if (taken != expected) std::printf(", but the model says %llu", static_cast<unsigned long long>(expected));
  std::printf("\n");
  return taken == expected;
}

// Whether `wanted` are the rows of a whole call, whose experts the tile chooses, and all its cycles are the model's.
bool whole_call(const std::string &folder, const std::vector<uint8_t> &rows, const void *const *weights,
                const std::vector<uint8_t> &wanted, const moec_rtl_cycles &expected) {
  const std::vector<int32_t> tasks =
      tile::TASKS > 1 ? read_file<int32_t>(folder + "tasks.bin") : std::vector<int32_t>(CASE_TOKENS);
  std::vector<uint8_t> result(size_t(CASE_TOKENS) * tile::OUTPUT_WORDS * tile::PORT_BYTES);
  moec_rtl_cycles cycles;
  if (moec_rtl_call(rows.data(), tasks.data(), weights, result.data(), CASE_TOKENS, &cycles)) return false;
  const auto total = [](const moec_rtl_cycles &all) {
    return all.rows + all.table + all.route + all.experts + all.result;
  };
  return same("route", cycles.route, expected.route) && same("call", total(cycles), total(expected)) &&
         result == wanted;
}

// How many of the logits of the tokens are wrong, each by the gate of its task.
int64_t wrong_logits(const std::string &name, const std::vector<uint8_t> &rows, const void *const *weights) {
  const std::vector<int32_t> wanted = read_file<int32_t>("logits/" + name + ".bin");
  std::vector<int32_t> tasks(CASE_TOKENS), got(CASE_TOKENS * tile::EXPERTS);
  if (tile::TASKS > 1) tasks = read_file<int32_t>("../tb/vectors/" + name + "/tasks.bin");
  int64_t wrong = 0;
  for (int task = 0; task < tile::TASKS; task++) {
    if (moec_rtl_logits(rows.data(), weights, CASE_TOKENS, task, got.data(), nullptr)) return -1;
    for (int64_t i = 0; i < int64_t(got.size()); i++)
      wrong += tasks.at(i / tile::EXPERTS) == task && got[i] != wanted.at(i);
  }
  return wrong;
}

}  // namespace

int main() {
  bool failed = false;
  for (const char *name : CASES) {
    const std::string folder = std::string("../tb/vectors/") + name + "/";
    const std::vector<uint8_t> rows = read_file<uint8_t>(folder + "rows.bin");
    const std::vector<uint8_t> wanted = read_file<uint8_t>(folder + "result.bin");
    const Visits visits = read_visits(std::string("visits/") + name + ".bin");
    std::vector<std::vector<uint8_t>> memory;
    std::vector<const void *> weights;
    for (int port = 0; port < tile::PORTS; port++)
      memory.push_back(read_weights(folder + "weights" + std::to_string(port) + ".bin"));
    for (const auto &port : memory) weights.push_back(port.data());

    std::vector<uint8_t> result(size_t(CASE_TOKENS) * tile::OUTPUT_WORDS * tile::PORT_BYTES);
    moec_rtl_cycles cycles;
    if (moec_rtl(rows.data(), weights.data(), CASE_TOKENS, int32_t(visits.expert.size()), visits.expert.data(),
                 visits.first.data(), visits.token.data(), visits.weight.data(), result.data(), &cycles))
      return 2;
    int64_t wrong = 0;
    for (size_t byte = 0; byte < wanted.size(); byte += 2) wrong += std::memcmp(&wanted[byte], &result[byte], 2) != 0;
    const int64_t logits = tile::ROUTES ? wrong_logits(name, rows, weights.data()) : 0;
    std::printf("%s: case %s, %d tokens, %lld codes and %lld logits differ\n", wrong || logits ? "FAIL" : "PASS", name,
                CASE_TOKENS, static_cast<long long>(wrong), static_cast<long long>(logits));
    failed |= wrong || logits;
    failed |= !same("rows", cycles.rows, visits.cycles.rows);
    failed |= !same("table", cycles.table, visits.cycles.table);
    failed |= !same("experts", cycles.experts, visits.cycles.experts);
    failed |= !same("result", cycles.result, visits.cycles.result);
    if (tile::CHOOSES && !whole_call(folder, rows, weights.data(), wanted, visits.cycles)) {
      std::printf("FAIL: case %s, a whole call\n", name);
      failed = true;
    }
  }
  return failed;
}
