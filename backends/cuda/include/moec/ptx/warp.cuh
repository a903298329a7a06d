// What the 32 threads of a warp do together, and atomic operations, on a GPU.
// All threads of the warp take part in each of these; those of other warps do not matter.
#pragma once

namespace moec {

// Values of 4 bytes of other lanes.  Orders no memory: `sync_warp` does.
template <class T>
MOEC_DEVICE T shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
template <class T>
MOEC_DEVICE T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
// The lane `by` lanes below (above); a lane's own value where there is none.
template <class T>
MOEC_DEVICE T shuffle_up(T value, int by) {
  return __shfl_up_sync(0xffffffffu, value, by);
}
template <class T>
MOEC_DEVICE T shuffle_down(T value, int by) {
  return __shfl_down_sync(0xffffffffu, value, by);
}
// Bit i: what lane i says.
MOEC_DEVICE u32 ballot_warp(bool condition) { return __ballot_sync(0xffffffffu, condition); }
MOEC_DEVICE bool any_lane(bool condition) { return __any_sync(0xffffffffu, condition); }
MOEC_DEVICE bool all_lanes(bool condition) { return __all_sync(0xffffffffu, condition); }

// Waits for the warp; what its threads wrote before, they all see.
MOEC_DEVICE void sync_warp() { __syncwarp(); }

// Atomic, relaxed; gives what stood there.  For shared and for global memory.
MOEC_DEVICE int atomic_add(int* at, int value) { return atomicAdd(at, value); }
MOEC_DEVICE u32 atomic_add(u32* at, u32 value) { return atomicAdd(at, value); }
MOEC_DEVICE float atomic_add(float* at, float value) { return atomicAdd(at, value); }
MOEC_DEVICE int atomic_max(int* at, int value) { return atomicMax(at, value); }
MOEC_DEVICE u32 atomic_or(u32* at, u32 value) { return atomicOr(at, value); }
template <class T>
MOEC_DEVICE T atomic_add(Shared<T> array, int i, T value) {
  return atomicAdd(array.data + i, value);
}

// What this thread wrote to global memory before is seen by whoever sees what it writes afterwards.
MOEC_DEVICE void fence_device() { __threadfence(); }

}  // namespace moec
