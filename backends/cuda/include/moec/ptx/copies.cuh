// Copies that run beside the threads, on a GPU.
#pragma once

namespace moec {

// Copies 16 bytes from global to shared memory (both aligned to 16): the first `bytes` (0..16), zeros behind them.
// Complete for this thread after `copies_wait`; others see it through a barrier behind that.
MOEC_DEVICE void copy_async(void* to, const void* from, int bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes)
               : "memory");
}
// Ends a group of this thread's copies (an empty one is a group, too).
MOEC_DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `pending` of the latest groups are under way.
template <int pending>
MOEC_DEVICE void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// Whatever this thread knows to be written to shared memory by threads (copy_async counts as such), wgmma and TMA see
// from now on: needed between such writes and wgmma, before the barrier through which its threads learn of them.
MOEC_DEVICE void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// One thread has TMA copy the map's box at (x, y, z), innermost first, to `to` (aligned to 1024 where lines are
// swizzled by 128 bytes); `barrier` gets the box's bytes.  What lies outside of the tensor is zero.
MOEC_DEVICE void copy_box(void* to, const TensorMap* map, Barrier* barrier, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
      "[%2];" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(x), "r"(y), "r"(z)
      : "memory");
}
MOEC_DEVICE void prefetch_map(const TensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

}  // namespace moec
