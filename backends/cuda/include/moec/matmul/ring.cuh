// A ring of stages in shared memory, between the threads of one warpgroup that copy and those of two that multiply.
//
// A stage is full when all 128 threads say that their copies are there, and empty when the 8 warps that multiply say
// that they have read it.  A thread that copies waits for its own cp.async, and only then fences and arrives: so many
// stages behind that the next ones are under way meanwhile.
#pragma once
#include "moec/matmul/work.cuh"

namespace moec {

// Where a thread is in the ring.  Tile has: stages; stage_bytes, a multiple of 1024.
template <class Tile>
struct Ring {
  static constexpr int stages = Tile::stages, lag = stages - 2;
  static_assert(stages >= 3 && Tile::stage_bytes % 1024 == 0);
  u8* const shared;
  int step = 0;  // stages that were filled, or taken to be multiplied, so far

  MOEC_DEVICE explicit Ring(u8* shared) : shared(shared) {}

  MOEC_DEVICE Barrier* barriers() const { return (Barrier*)(shared + stages * Tile::stage_bytes); }
  MOEC_DEVICE Barrier* full(int number) const { return barriers() + number % stages; }
  MOEC_DEVICE Barrier* empty(int number) const { return barriers() + stages + number % stages; }
  MOEC_DEVICE u8* stage() const { return shared + step % stages * Tile::stage_bytes; }
  MOEC_DEVICE int round() const { return step / stages & 1; }
  // What lies behind the ring.
  MOEC_DEVICE void* end() const { return barriers() + 2 * stages; }

  // One thread, before a barrier of the block.  boxes: how many threads have TMA copy into a stage (`full_of`).
  MOEC_DEVICE void prepare(int boxes) const {
    for (int i = 0; i < stages; i++) {
      barrier_init(full(i), 128 + boxes);
      barrier_init(empty(i), 8);
    }
    fence_barrier_init();
  }

  // The stage that comes next, once nobody reads it any more.
  MOEC_DEVICE u8* to_fill() const {
    barrier_wait(empty(step), round() ^ 1);
    return stage();
  }
  // The barrier that tells of this stage.
  MOEC_DEVICE Barrier* full_of() const { return full(step); }
  // This thread has started all its copies into the stage.
  MOEC_DEVICE void started() {
    copies_commit();
    if (step >= lag) {
      copies_wait<lag>();
      fence_async_proxy();
      barrier_arrive(full(step - lag));
    }
    step++;
  }
  // There are no more stages.
  MOEC_DEVICE void all_started() const {
    copies_wait<0>();
    fence_async_proxy();
    for (int late = step < lag ? 0 : step - lag; late < step; late++) barrier_arrive(full(late));
  }

  // The stage that comes next, once everything is there.
  MOEC_DEVICE const u8* to_multiply() {
    barrier_wait(full(step), round());
    const u8* const found = stage();
    step++;
    return found;
  }
  // This warp no longer reads the stage that it took `before` stages before the last one.
  MOEC_DEVICE void left(int before) const {
    if (lane_index() == 0) barrier_arrive(empty(step - 1 - before));
  }
};

// The rows of a part, of which 128 threads bring lines of 128 bytes: eight threads one line.
template <class Tile>
struct GatheredRows {
  static constexpr int each = Tile::rows / 16;
  int source[each];

  template <class P>
  MOEC_DEVICE GatheredRows(const P& plan, const Part& part) {
    MOEC_UNROLL
    for (int i = 0; i < each; i++) {
      const int row = (thread_index() >> 3) + i * 16;
      source[i] = row < part.count ? plan.source(part.first + row) : -1;
    }
  }
  // Starts to copy the elements from `first` on of all rows.
  MOEC_DEVICE void bring(u8* stage, const typename Tile::T* from, int first) const {
    using T = typename Tile::T;
    const int unit = thread_index() & 7, at = first + unit * in_unit<T>;
    const bool within = Tile::inner % Tile::depth == 0 || at < Tile::inner;
    MOEC_UNROLL
    for (int i = 0; i < each; i++) {
      u8* const to = stage + swizzled((thread_index() >> 3) + i * 16, unit);
      bring_unit<pitch_of_rows<T>(Tile::inner)>(to, from, within ? source[i] : -1, at);
    }
  }
};

}  // namespace moec
