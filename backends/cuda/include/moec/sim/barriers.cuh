// Barriers of a block's threads, on the simulator.
#pragma once

namespace moec {
namespace sim {

void named_barrier(int id, int threads, bool wait, const char* primitive, Where where);
void set_registers(int count, bool raise, const char* primitive, Where where);

}  // namespace sim

inline void sync_block(sim::Where where = sim::Where::current()) {
  sim::named_barrier(0, sim::block->threads, true, "sync_block", where);
}
inline void sync_named(int id, int threads, sim::Where where = sim::Where::current()) {
  sim::named_barrier(id, threads, true, "sync_named", where);
}
inline void arrive_named(int id, int threads, sim::Where where = sim::Where::current()) {
  sim::named_barrier(id, threads, false, "arrive_named", where);
}

void barrier_init(Barrier* barrier, int arrivals, sim::Where where = sim::Where::current());
void fence_barrier_init();
void barrier_arrive(Barrier* barrier, sim::Where where = sim::Where::current());
void barrier_arrive_expect(Barrier* barrier, int bytes, sim::Where where = sim::Where::current());
void barrier_wait(Barrier* barrier, int parity, sim::Where where = sim::Where::current());

template <int count>
void raise_registers(sim::Where where = sim::Where::current()) {
  static_assert(count % 8 == 0 && count >= 24 && count <= 256);
  sim::set_registers(count, true, "raise_registers", where);
}
template <int count>
void lower_registers(sim::Where where = sim::Where::current()) {
  static_assert(count % 8 == 0 && count >= 24 && count <= 256);
  sim::set_registers(count, false, "lower_registers", where);
}

}  // namespace moec
