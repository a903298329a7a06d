// Matrix products of a warpgroup (128 threads) out of shared memory or registers, on a GPU (sm_90a).
// `wgmma` and `wgmma_from_registers` are defined in the source for the columns that it needs, as registers have to be
// named one by one (backends/cuda/wgmma.py).
#pragma once

namespace moec {

// A matrix in shared memory whose lines of 128 bytes are swizzled, for wgmma.
// K innermost: lines of 64 elements along k, groups of 8 lines `stride` bytes apart; `leading` is not used.
// K outermost (transposed): lines of 64 elements along m or n, a line for each k; groups of 8 lines `stride` bytes
// apart, the next 64 elements along m or n `leading` bytes away.
MOEC_DEVICE u64 matrix_descriptor(const void* at, u32 leading, u32 stride) {
  return (u64)((shared_address(at) & 0x3ffff) >> 4) | ((u64)(leading >> 4) << 16) | ((u64)(stride >> 4) << 32) |
         (1ull << 62);
}

// sums (+)= a * b, 64 x columns x 16 elements of T; with `accumulate` added to what is there.  Thread 32 w + 4 l + c holds
// of rows 16 w + l (0, 1) and 16 w + l + 8 (2, 3) columns 8 j + 2 c, 8 j + 2 c + 1 in sums[4 j..].
template <class T, int columns, int transposed_a = 0, int transposed_b = 0>
MOEC_DEVICE void wgmma(float (&sums)[columns / 2], u64 a, u64 b, bool accumulate);
// The same with `a` in registers: thread 32 w + 4 l + c has rows 16 w + l (words 0, 2) and 16 w + l + 8 (words 1, 3),
// elements 2 c, 2 c + 1 of k 0..7 (words 0, 1) and 8..15 (words 2, 3).  They stay as they are until the product was
// waited for.
template <class T, int columns>
MOEC_DEVICE void wgmma_from_registers(float (&sums)[columns / 2], const u32 (&a)[4], u64 b, bool accumulate);
// The same of whole numbers of a byte, 64 x columns x 32, sums i32: words 0, 1 have k 4 c.. of 0..15, the others of 16..31.
template <class T, int columns>
MOEC_DEVICE void wgmma_from_registers(int (&sums)[columns / 2], const u32 (&a)[4], u64 b, bool accumulate);

// Before the first product, and whenever registers of a product were touched since: the accumulators are wgmma's now.
MOEC_DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// The same behind the last write of registers that will be matrices: `count` of them.
template <int count, int words>
MOEC_DEVICE void wgmma_fence(u32 (&matrices)[count][words]) {
  MOEC_UNROLL
  for (int i = 0; i < count; i++) {
    MOEC_UNROLL
    for (int w = 0; w < words; w++) asm volatile("" : "+r"(matrices[i][w])::"memory");
  }
  wgmma_fence();
}
// Ends a group of products.
MOEC_DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most `pending` of the latest groups are under way; `sums` can be read if its products are complete.
template <int pending, int count>
MOEC_DEVICE void wgmma_wait(float (&sums)[count]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
  MOEC_UNROLL
  for (int i = 0; i < count; i++) asm volatile("" : "+f"(sums[i])::"memory");
}
template <int pending, int count>
MOEC_DEVICE void wgmma_wait(int (&sums)[count]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
  MOEC_UNROLL
  for (int i = 0; i < count; i++) asm volatile("" : "+r"(sums[i])::"memory");
}
template <int pending, class Sum, int sets, int count>
MOEC_DEVICE void wgmma_wait(Sum (&sums)[sets][count]) {
  MOEC_UNROLL
  for (int i = 0; i < sets; i++) wgmma_wait<pending>(sums[i]);
}

}  // namespace moec
