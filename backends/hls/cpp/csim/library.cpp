// The kernel as a library: what `moec.load` runs, and what anything else may that can call C.
#include "kernel_call.h"
#include "words.h"

// Rows, weights and result as words of memory; `weights` has a pointer for each port, `tasks` may be null where there is
// one task.  Returns 0, or 1 where there are more than TOKENS tokens.  Not to be called from two threads at once.
extern "C" int moec_csim(const void *rows, const int32_t *tasks, const void *const *weights, void *result,
                         int32_t tokens) {
  if (tokens < 0 || tokens > TOKENS) return 1;
  std::vector<word_t> ports[PORTS];
  for (int port = 0; port < PORTS; port++) ports[port] = read_words(weights[port], MEMORY_BEATS);
  const std::vector<word_t> in = read_words(rows, size_t(tokens) * INPUT_WORDS);
  std::vector<word_t> out(size_t(tokens) * OUTPUT_WORDS);
  call_kernel(in, tasks, ports, out, tokens);
  write_words(out, result);
  return 0;
}
