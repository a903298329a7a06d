// Matrix products of a warp out of registers, on the simulator.
#pragma once

namespace moec {
namespace sim {

void load_matrices(u32* to, const void* row, bool transposed, const char* primitive, Where where);
u32 transpose_matrix(u32 matrix, Where where);
void multiply(float* d, const u32* a, u32 b0, u32 b1, bool half, Where where);

template <class T>
constexpr bool is_half = false;
template <>
inline constexpr bool is_half<f16> = true;

}  // namespace sim

inline void load_matrices(u32 (&to)[4], const void* row, sim::Where where = sim::Where::current()) {
  sim::load_matrices(to, row, false, "load_matrices", where);
}
inline void load_matrices_transposed(u32 (&to)[4], const void* row, sim::Where where = sim::Where::current()) {
  sim::load_matrices(to, row, true, "load_matrices_transposed", where);
}
inline u32 transpose_matrix(u32 matrix, sim::Where where = sim::Where::current()) {
  return sim::transpose_matrix(matrix, where);
}
template <class T>
void multiply(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, sim::Where where = sim::Where::current()) {
  sim::multiply(d, a, b0, b1, sim::is_half<T>, where);
}

}  // namespace moec
