// What the 32 threads of a warp do together, and atomic operations, on the simulator.
#pragma once

namespace moec {
namespace sim {

// Lane i gets `pick(values, i)` of what all lanes brought.
template <class T, class R, class F>
R exchange(T value, F pick, const char* primitive, Where where) {
  struct Given {
    T value;
    R result;
  } given{value, {}};
  Meeting& meeting = block->warps[warp_index()];
  if (meet(meeting, 32, lane_index(), &given, primitive, where)) {
    T values[32];
    for (int i = 0; i < 32; i++) values[i] = ((Given*)meeting.given[i])->value;
    for (int i = 0; i < 32; i++) ((Given*)meeting.given[i])->result = pick(values, i);
    part(meeting);
  }
  return given.result;
}

}  // namespace sim

template <class T>
T shuffle(T value, int lane, sim::Where where = sim::Where::current()) {
  struct Wish {
    T value;
    int lane;
  };
  return sim::exchange<Wish, T>(
      {value, lane}, [](const Wish* all, int i) { return all[all[i].lane & 31].value; }, "shuffle", where);
}
template <class T>
T shuffle_xor(T value, int mask, sim::Where where = sim::Where::current()) {
  return sim::exchange<T, T>(
      value, [mask](const T* all, int i) { return all[(i ^ mask) & 31]; }, "shuffle_xor", where);
}
template <class T>
T shuffle_up(T value, int by, sim::Where where = sim::Where::current()) {
  return sim::exchange<T, T>(
      value, [by](const T* all, int i) { return all[i < by ? i : i - by]; }, "shuffle_up", where);
}
template <class T>
T shuffle_down(T value, int by, sim::Where where = sim::Where::current()) {
  return sim::exchange<T, T>(
      value, [by](const T* all, int i) { return all[i + by > 31 ? i : i + by]; }, "shuffle_down", where);
}
inline u32 ballot_warp(bool condition, sim::Where where = sim::Where::current()) {
  return sim::exchange<bool, u32>(
      condition,
      [](const bool* all, int) {
        u32 bits = 0;
        for (int i = 0; i < 32; i++) bits |= (u32)all[i] << i;
        return bits;
      },
      "ballot_warp", where);
}
inline bool any_lane(bool condition, sim::Where where = sim::Where::current()) { return ballot_warp(condition, where) != 0; }
inline bool all_lanes(bool condition, sim::Where where = sim::Where::current()) { return ballot_warp(condition, where) == ~0u; }

inline void sync_warp(sim::Where where = sim::Where::current()) {
  using namespace sim;
  Meeting& meeting = block->warps[warp_index()];
  if (!meet(meeting, 32, lane_index(), &self->knows, "sync_warp", where)) return;
  Knowledge all;
  for (int i = 0; i < 32; i++) {
    join(all.seen, ((Knowledge*)meeting.given[i])->seen);
    join(all.fenced, ((Knowledge*)meeting.given[i])->fenced);
  }
  for (int i = 0; i < 32; i++) {
    Knowledge& knows = *(Knowledge*)meeting.given[i];
    knows = all;
    knows.seen[(self->index & ~31) + i]++;
  }
  part(meeting);
}

namespace sim {

template <class T, class F>
T atomic(T* at, F change, Where where) {
  if (in_shared(at)) read(at, sizeof(T), "an atomic operation", where, Use::atomic);
  const T old = *at;
  *at = change(old);
  return old;
}

}  // namespace sim

inline int atomic_add(int* at, int value, sim::Where where = sim::Where::current()) {
  return sim::atomic(at, [=](int old) { return old + value; }, where);
}
inline u32 atomic_add(u32* at, u32 value, sim::Where where = sim::Where::current()) {
  return sim::atomic(at, [=](u32 old) { return old + value; }, where);
}
inline float atomic_add(float* at, float value, sim::Where where = sim::Where::current()) {
  return sim::atomic(at, [=](float old) { return old + value; }, where);
}
inline int atomic_max(int* at, int value, sim::Where where = sim::Where::current()) {
  return sim::atomic(at, [=](int old) { return old > value ? old : value; }, where);
}
inline u32 atomic_or(u32* at, u32 value, sim::Where where = sim::Where::current()) {
  return sim::atomic(at, [=](u32 old) { return old | value; }, where);
}
template <class T>
T atomic_add(Shared<T> array, int i, T value, sim::Where where = sim::Where::current()) {
  return atomic_add(array.data + i, value, where);
}

inline void fence_device() {}

}  // namespace moec
