// Matrix products of a warp out of registers, on a GPU.
#pragma once

namespace moec {

// Four 8x8 matrices of 16-bit elements from shared memory: lane 8 m + r gives the address of row r of matrix m (16
// bytes, aligned), and gets of each matrix elements 2 c, 2 c + 1 of row l, where its lane is 4 l + c.
MOEC_DEVICE void load_matrices(u32 (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}
// The same of the matrices' transposes.
MOEC_DEVICE void load_matrices_transposed(u32 (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}

// The transpose of an 8x8 matrix of 16-bit elements, of which lane 4 l + c has elements 2 c, 2 c + 1 of row l.
MOEC_DEVICE u32 transpose_matrix(u32 matrix) {
  u32 r;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(matrix));
  return r;
}

// d += a * b, 16x8x16 elements of T, sums f32.  With lane 4 l + c: a holds rows l, l + 8 (words 0, 2 and 1, 3) and
// columns 2 c.. of k 0..7 (words 0, 1) and 8..15 (words 2, 3); b holds column l, k 2 c.. and 8 + 2 c..; d holds rows l
// (0, 1) and l + 8 (2, 3), columns 2 c, 2 c + 1.
template <class T>
MOEC_DEVICE void multiply(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1);
template <>
MOEC_DEVICE void multiply<bf16>(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
MOEC_DEVICE void multiply<f16>(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// The same of whole numbers of a byte, 16x8x32, sums i32, which wrap: a word has k 4 c.. of 0..15 (a 0, 1, b0) or of
// 16..31 (a 2, 3, b1).
template <class T>
MOEC_DEVICE void multiply(int (&d)[4], const u32 (&a)[4], u32 b0, u32 b1);
template <>
MOEC_DEVICE void multiply<i8>(int (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace moec
