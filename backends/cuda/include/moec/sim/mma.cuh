// Matrix products of a warp out of registers, on the simulator.
#pragma once

namespace moec {
namespace sim {

void load_matrices(u32* to, const void* row, bool transposed, const char* primitive, Where where);
u32 transpose_matrix(u32 matrix, Where where);
void multiply(void* d, const u32* a, u32 b0, u32 b1, Numbers numbers, Where where);

template <class T>
inline constexpr Numbers numbers_of = Numbers::bf16;
template <>
inline constexpr Numbers numbers_of<f16> = Numbers::f16;
template <>
inline constexpr Numbers numbers_of<i8> = Numbers::i8;
template <class T>
using SumOf = Chosen<numbers_of<T> == Numbers::i8, int, float>;

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
void multiply(sim::SumOf<T> (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, sim::Where where = sim::Where::current()) {
  sim::multiply(d, a, b0, b1, sim::numbers_of<T>, where);
}

}  // namespace moec
