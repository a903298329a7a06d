// Barriers of a block's threads, on a GPU.
#pragma once

namespace moec {

// Waits for all threads of the block; what they wrote before, they all see.
MOEC_DEVICE void sync_block() { __syncthreads(); }

// The same for `threads` threads (whole warps) of the block that name barrier `id`, 1..15 (0 is that of `sync_block`).
MOEC_DEVICE void sync_named(int id, int threads) {
  asm volatile("barrier.cta.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// Arrives at such a barrier and does not wait; `threads` counts those that wait, too.
MOEC_DEVICE void arrive_named(int id, int threads) {
  asm volatile("barrier.cta.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// An mbarrier counts arrivals (and bytes that copies owe).  Its phases end when all that is due has come; they are
// counted from 0, and a wait names the parity of the phase whose end it waits for.
// One thread initialises it, then `fence_barrier_init`, then `sync_block`.
MOEC_DEVICE void barrier_init(Barrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
MOEC_DEVICE void fence_barrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
// Arrives; what this thread wrote before is seen by threads that wait for the phase.
MOEC_DEVICE void barrier_arrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Arrives, and lets the phase last until `bytes` more have been copied.
MOEC_DEVICE void barrier_arrive_expect(Barrier* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
// Waits until the phase of this parity has ended.  A barrier that is fresh counts as one whose phase of parity 1 has.
MOEC_DEVICE void barrier_wait(Barrier* barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "MOEC_WAIT_%=:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra MOEC_WAIT_%=;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// Gives registers to (takes them from) each thread of a warpgroup, whose 128 threads all call it; a multiple of 8.
template <int count>
MOEC_DEVICE void raise_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}
template <int count>
MOEC_DEVICE void lower_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}

}  // namespace moec
