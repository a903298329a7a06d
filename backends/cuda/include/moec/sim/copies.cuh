// Copies that run beside the threads, on the simulator: they happen when they are waited for.
#pragma once

namespace moec {
namespace sim {

constexpr u64 TENSOR_MAP = 0x74656e736f726d61;

// A TensorMap of a tensor of three axes, innermost first; strides in bytes of axes 1 and 2, swizzle 0 or 128.
// False where the driver's encoder would refuse it.
bool encode_map(TensorMap& map, const void* base, const i64 (&sizes)[3], const i64 (&strides)[2], const i64 (&box)[3],
                int swizzle, int element_bytes);

void wait_copies(int pending, Where where);

}  // namespace sim

void copy_async(void* to, const void* from, int bytes = 16, sim::Where where = sim::Where::current());
inline void copies_commit() { sim::self->groups.emplace_back(); }
template <int pending>
void copies_wait(sim::Where where = sim::Where::current()) {
  sim::wait_copies(pending, where);
}

inline void fence_async_proxy() {
  sim::Knowledge& knows = sim::self->knows;
  sim::join(knows.fenced, knows.seen);
  knows.seen[sim::self->index]++;
}

void copy_box(void* to, const TensorMap* map, Barrier* barrier, int x, int y, int z,
              sim::Where where = sim::Where::current());
inline void prefetch_map(const TensorMap*) {}

}  // namespace moec
