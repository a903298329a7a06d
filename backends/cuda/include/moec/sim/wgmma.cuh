// Matrix products of a warpgroup, on the simulator: they happen when they are waited for.
#pragma once

namespace moec {
namespace sim {

void wgmma(void* sums, int columns, u64 a, u64 b, bool accumulate, Numbers numbers, bool transposed_a,
           bool transposed_b, Where where);
void wgmma_from_registers(void* sums, int columns, const u32* a, u64 b, bool accumulate, Numbers numbers, Where where);
void wgmma_commit(Where where);
void wgmma_wait(int pending, Where where);

}  // namespace sim

inline u64 matrix_descriptor(const void* at, u32 leading, u32 stride) {
  return (u64)((shared_address(at) & 0x3ffff) >> 4) | ((u64)(leading >> 4) << 16) | ((u64)(stride >> 4) << 32) |
         (1ull << 62);
}
void wgmma_fence(sim::Where where = sim::Where::current());
inline void wgmma_commit(sim::Where where = sim::Where::current()) { sim::wgmma_commit(where); }
template <int count, int words>
void wgmma_fence(u32 (&)[count][words], sim::Where where = sim::Where::current()) {
  wgmma_fence(where);
}
template <int pending, class Sums>
void wgmma_wait(Sums&, sim::Where where = sim::Where::current()) {
  sim::wgmma_wait(pending, where);
}
template <class T, int columns, int transposed_a = 0, int transposed_b = 0>
void wgmma(float (&sums)[columns / 2], u64 a, u64 b, bool accumulate, sim::Where where = sim::Where::current()) {
  sim::wgmma(sums, columns, a, b, accumulate, sim::numbers_of<T>, transposed_a, transposed_b, where);
}
template <class T, int columns>
void wgmma_from_registers(sim::SumOf<T> (&sums)[columns / 2], const u32 (&a)[4], u64 b, bool accumulate,
                          sim::Where where = sim::Where::current()) {
  sim::wgmma_from_registers(sums, columns, a, b, accumulate, sim::numbers_of<T>, where);
}

}  // namespace moec
