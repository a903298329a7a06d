// Runs the kernel on the vectors and compares every word: `testbench [folder of vectors]`.  Returns 0 where all agree.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "cases.h"
#include "../csim/kernel_call.h"
#include "../csim/words.h"

static std::vector<unsigned char> read_file(const std::string &path) {
  std::FILE *file = std::fopen(path.c_str(), "rb");
  if (!file) {
    std::fprintf(stderr, "cannot read %s\n", path.c_str());
    std::exit(2);
  }
  std::vector<unsigned char> bytes;
  unsigned char block[65536];
  for (size_t got; (got = std::fread(block, 1, sizeof block, file)) > 0;) bytes.insert(bytes.end(), block, block + got);
  std::fclose(file);
  return bytes;
}

static std::vector<word_t> read_file_words(const std::string &path, size_t count) {
  const std::vector<unsigned char> bytes = read_file(path);
  if (bytes.size() != count * (PORT_BITS / 8)) {
    std::fprintf(stderr, "%s has %zu bytes instead of %zu\n", path.c_str(), bytes.size(), count * (PORT_BITS / 8));
    std::exit(2);
  }
  return read_words(bytes.data(), count);
}

// A port's memory with all experts, of a file with the first DISTINCT ones.
static std::vector<word_t> read_weights(const std::string &path) {
  const size_t before = FIRST_EXPERT, behind = size_t(MEMORY_BEATS) - FIRST_COMMON;
  const std::vector<word_t> file = read_file_words(path, before + size_t(DISTINCT) * EXPERT_BEATS + behind);
  std::vector<word_t> words(file.begin(), file.begin() + before);
  for (int expert = 0; expert < EXPERTS; expert++) {
    const auto first = file.begin() + before + size_t(expert % DISTINCT) * EXPERT_BEATS;
    words.insert(words.end(), first, first + EXPERT_BEATS);
  }
  words.insert(words.end(), file.end() - behind, file.end());
  return words;
}

static int differing(const std::vector<word_t> &result, const std::vector<word_t> &wanted, int words) {
  int count = 0;
  for (int word = 0; word < words; word++) count += result[word] != wanted[word];
  return count;
}

static std::string folder_of(int count, char **values) {
  if (count > 1) return std::string(values[1]) + "/";
  // Tools that copy the folder put it beside the program; by hand the program runs in the project's folder.
  if (std::FILE *file = std::fopen("vectors/random/rows.bin", "rb")) {
    std::fclose(file);
    return "vectors/";
  }
  return "tb/vectors/";
}

int main(int count, char **values) {
  const std::string vectors = folder_of(count, values);
  int failed = 0;
  for (const char *name : CASES) {
    const std::string folder = vectors + name + "/";
    // As long as a co-simulation reads them, whatever the call's tokens are.
    std::vector<word_t> rows = read_file_words(folder + "rows.bin", size_t(CASE_TOKENS) * INPUT_WORDS);
    rows.resize(size_t(TOKENS) * INPUT_WORDS);
    const std::vector<word_t> wanted = read_file_words(folder + "result.bin", size_t(CASE_TOKENS) * OUTPUT_WORDS);
    std::vector<int> tasks(TOKENS);
    if (TASKS > 1) {
      const std::vector<unsigned char> bytes = read_file(folder + "tasks.bin");
      if (bytes.size() != CASE_TOKENS * sizeof(int)) return 2;
      std::memcpy(tasks.data(), bytes.data(), bytes.size());
    }
    std::vector<word_t> weights[PORTS];
    for (int port = 0; port < PORTS; port++) weights[port] = read_weights(folder + "weights" + std::to_string(port) + ".bin");
    // What a call leaves behind must not change the next one: no token, one token, all tokens.
    for (int tokens : {0, 1, CASE_TOKENS}) {
      std::vector<word_t> result(size_t(TOKENS) * OUTPUT_WORDS);
      call_kernel(rows, tasks.data(), weights, result, tokens);
      const int words = tokens * OUTPUT_WORDS, wrong = differing(result, wanted, words);
      std::printf("%s: case %s, %d tokens, %d of %d words differ\n", wrong ? "FAIL" : "PASS", name, tokens, wrong, words);
      failed += wrong != 0;
    }
  }
  return failed != 0;
}
