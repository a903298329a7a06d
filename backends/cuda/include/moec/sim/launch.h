// Running a grid: what MOEC_EXPORT(name) makes of a kernel.
#pragma once
#include <cstddef>
#include <tuple>
#include <utility>

#include "moec/types.cuh"

namespace moec::sim {

// Runs `body(context)` in every thread of every block, the blocks one after another; 0, or 1 with `error()`.
int run_grid(const char* kernel, int blocks, int threads, u64 shared_bytes, void (*body)(void*), void* context);
const char* error();
// The order in which blocks and threads run: 0 ascending, 1 descending, else at random from this seed.
void set_order(u64 seed);

template <class... A>
struct Call {
  void (*kernel)(A...);
  void** arguments;
};

template <class... A, std::size_t... I>
void unpack(const Call<A...>& call, std::index_sequence<I...>) {
  call.kernel(*(std::remove_reference_t<A>*)call.arguments[I]...);
}

// `arguments` points to the value of each parameter, as those of cuLaunchKernel.
template <class... A>
int launch(const char* name, void (*kernel)(A...), int blocks, int threads, u64 shared_bytes, void** arguments) {
  Call<A...> call{kernel, arguments};
  return run_grid(
      name, blocks, threads, shared_bytes,
      [](void* context) { unpack(*(Call<A...>*)context, std::index_sequence_for<A...>{}); }, &call);
}

}  // namespace moec::sim

#define MOEC_EXPORT(name)                                                                                            \
  extern "C" int moec_sim_launch_##name(int blocks, int threads, unsigned long long shared_bytes, void** arguments) { \
    return moec::sim::launch(#name, name, blocks, threads, shared_bytes, arguments);                                 \
  }
