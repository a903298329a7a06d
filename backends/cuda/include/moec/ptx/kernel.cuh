// What a kernel is made of, on a GPU.
#pragma once

#define MOEC_KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#define MOEC_DEVICE __device__ __forceinline__
#define MOEC_CONSTANT static __device__ __constant__ const
#define MOEC_GRID_CONSTANT const __grid_constant__
#define MOEC_RESTRICT __restrict__
#define MOEC_UNROLL _Pragma("unroll")
#define MOEC_TEXT(x) #x
#define MOEC_UNROLL_BY(count) _Pragma(MOEC_TEXT(unroll count))
// The block's dynamic shared memory as `moec::u8* name`, aligned to 1024 bytes.
#define MOEC_SHARED(name)                                       \
  extern __shared__ __align__(1024) moec::u8 moec_shared_[];    \
  moec::u8* name = moec_shared_

namespace moec {

MOEC_DEVICE int thread_index() { return (int)threadIdx.x; }
MOEC_DEVICE int block_threads() { return (int)blockDim.x; }
MOEC_DEVICE int block_index() { return (int)blockIdx.x; }
MOEC_DEVICE int grid_blocks() { return (int)gridDim.x; }
MOEC_DEVICE int lane_index() { return (int)threadIdx.x & 31; }
MOEC_DEVICE int warp_index() { return (int)threadIdx.x >> 5; }

MOEC_DEVICE u32 shared_address(const void* pointer) { return (u32)__cvta_generic_to_shared(pointer); }

// Elements in shared memory.  On a GPU a pointer; the simulator looks for races between the threads that use it.
template <class T>
struct Shared {
  T* data;
  MOEC_DEVICE T& operator[](int i) const { return data[i]; }
  MOEC_DEVICE Shared operator+(int i) const { return {data + i}; }
};
template <class T>
MOEC_DEVICE Shared<T> shared_array(void* at) {
  return {(T*)at};
}

// Moves of 16 (8) bytes, aligned, from and to shared memory.
MOEC_DEVICE Pair load_shared_pair(const void* at) { return *(const Pair*)at; }
MOEC_DEVICE Quad load_shared(const void* at) { return *(const Quad*)at; }
MOEC_DEVICE void store_shared(void* at, const Quad& value) { *(Quad*)at = value; }

}  // namespace moec
