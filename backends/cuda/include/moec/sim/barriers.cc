// Barriers: named ones, and mbarriers with the bytes that TMA owes them.
#include "moec/primitives.cuh"

namespace moec {
namespace sim {

constexpr u64 MAGIC = 0x6d62617272696572;

static Mbarrier& known(Barrier* barrier, const char* primitive, Where where) {
  offset_of(barrier, 8, primitive, where);
  const u64 index = barrier->opaque ^ MAGIC;
  if (index >= block->barriers.size()) fail(primitive, where, "a barrier that was not initialised");
  Mbarrier& found = block->barriers[index];
  if (self->knows.seen[found.made_by] < found.made_at)
    fail(primitive, where, "nothing orders the barrier's initialisation before this");
  return found;
}

static void settle(Mbarrier& barrier) {
  if (barrier.pending || barrier.owed) return;
  barrier.pending = barrier.count;
  barrier.phases++;
  join(barrier.ended.seen, barrier.coming.seen);
  join(barrier.ended.fenced, barrier.coming.fenced);
  if (barrier.ended.seen.empty()) barrier.ended.seen.resize(block->agents);
  barrier.ended.seen[barrier.agent] = (u32)barrier.phases;
  barrier.coming = {};
  block->progress++;
}

static void arrive(Mbarrier& barrier, int bytes, const char* primitive, Where where) {
  if (!barrier.pending) fail(primitive, where, "more arrivals than the barrier's phase counts");
  release(barrier.coming);
  barrier.owed += bytes;
  barrier.pending--;
  settle(barrier);
}

void deliver(const BoxCopy& box) {
  const u64* map = box.map.opaque;
  const u8* base = (const u8*)map[1];
  const i64 bytes = (i64)map[11];
  const bool swizzle = map[10] == 128;
  const u64 origin = (u64)(box.to - block->shared);
  u64 place = 0;
  for (i64 z = 0; z < (i64)map[9]; z++)
    for (i64 y = 0; y < (i64)map[8]; y++)
      for (i64 x = 0; x < (i64)map[7]; x++, place += bytes) {
        const i64 at[3] = {box.x + x, box.y + y, box.z + z};
        u64 to = origin + place;
        if (swizzle) to ^= (to >> 7 & 7) << 4;
        bool inside = true;
        for (int i = 0; i < 3; i++) inside = inside && at[i] >= 0 && at[i] < (i64)map[2 + i];
        if (inside)
          std::memcpy(block->shared + to, base + at[0] * bytes + at[1] * (i64)map[5] + at[2] * (i64)map[6], bytes);
        else
          std::memset(block->shared + to, 0, bytes);
      }
  Mbarrier& barrier = block->barriers[box.barrier];
  barrier.owed -= (i64)place;
  settle(barrier);
}

void named_barrier(int id, int threads, bool wait, const char* primitive, Where where) {
  if (id < 0 || id >= MAX_NAMED) fail(primitive, where, "a barrier that does not exist");
  if (threads <= 0 || threads % 32 || threads > block->threads) fail(primitive, where, "a wrong number of threads");
  Named& barrier = block->named[id];
  if (barrier.arrived && barrier.threads != threads)
    fail(primitive, where, "others wait at this barrier for " + std::to_string(barrier.threads) + " threads");
  barrier.threads = threads;
  release(barrier.coming);
  const u64 generation = barrier.generation;
  if (++barrier.arrived == threads) {
    barrier.arrived = 0;
    barrier.generation++;
    barrier.ended = std::move(barrier.coming);
    barrier.coming = {};
  }
  block->progress++;
  if (!wait) return;
  wait_until([](const void* b, u64 old) { return ((const Named*)b)->generation != old; }, &barrier, generation,
             primitive, where);
  acquire(barrier.ended);
}

void set_registers(int count, bool raise, const char* primitive, Where where) {
  Warpgroup& group = block->warpgroups[self->index / 128];
  if (!meet(group.meeting, 128, self->index % 128, nullptr, primitive, where)) return;
  if (raise ? count < group.registers : count > group.registers)
    fail(primitive, where, "a warpgroup has " + std::to_string(group.registers) + " registers already");
  group.registers = count;
  part(group.meeting);
  // Registers that others have yet to give are waited for.
  const auto enough = [](const void* all, u64) {
    int sum = 0;
    for (const Warpgroup& one : ((const Block*)all)->warpgroups) sum += one.registers;
    return sum * 128 <= 65536;
  };
  wait_until(enough, block, 0, primitive, where);
}

}  // namespace sim

using namespace sim;

void barrier_init(Barrier* barrier, int arrivals, Where where) {
  const u64 offset = offset_of(barrier, 8, "barrier_init", where);
  if (offset % 8 || arrivals < 1) fail("barrier_init", where, "a barrier that is not aligned, or for nobody");
  if ((barrier->opaque ^ MAGIC) < block->barriers.size()) fail("barrier_init", where, "the barrier is in use");
  if (block->barriers.size() == MAX_BARRIERS) fail("barrier_init", where, "too many barriers");
  barrier->opaque = MAGIC ^ block->barriers.size();
  Mbarrier& made = block->barriers.emplace_back();
  made.count = made.pending = arrivals;
  made.agent = block->threads + MAX_WARPGROUPS + (int)block->barriers.size() - 1;
  made.made_by = self->index;
  made.made_at = self->knows.seen[self->index];
}

void fence_barrier_init() {
  for (Mbarrier& barrier : block->barriers)
    if (barrier.made_by == self->index) barrier.fenced = true;
}

void barrier_arrive(Barrier* barrier, Where where) {
  arrive(known(barrier, "barrier_arrive", where), 0, "barrier_arrive", where);
}

void barrier_arrive_expect(Barrier* barrier, int bytes, Where where) {
  arrive(known(barrier, "barrier_arrive_expect", where), bytes, "barrier_arrive_expect", where);
}

void barrier_wait(Barrier* barrier, int parity, Where where) {
  Mbarrier& found = known(barrier, "barrier_wait", where);
  if (parity != 0 && parity != 1) fail("barrier_wait", where, "a parity is 0 or 1");
  wait_until([](const void* b, u64 parity) { return (((const Mbarrier*)b)->phases & 1) != parity; }, &found,
             (u64)parity, "barrier_wait", where);
  acquire(found.ended);
}

void copy_box(void* to, const TensorMap* map, Barrier* barrier, int x, int y, int z, Where where) {
  Mbarrier& found = known(barrier, "copy_box", where);
  if (!found.fenced) fail("copy_box", where, "the barrier's initialisation was not fenced (fence_barrier_init)");
  if (map->opaque[0] != TENSOR_MAP) fail("copy_box", where, "this is no tensor map");
  const u64 bytes = map->opaque[7] * map->opaque[8] * map->opaque[9] * map->opaque[11];
  const u64 offset = offset_of(to, bytes, "copy_box", where);
  if (offset % (map->opaque[10] == 128 ? 1024 : 128)) fail("copy_box", where, "a destination that is not aligned");
  check_write(offset, bytes, self->knows, true, found.agent, (u32)found.phases + 1, Proxy::async, "copy_box", where);
  std::memset(to, 0xFF, bytes);
  block->boxes.push_back({(u8*)to, *map, (int)(barrier->opaque ^ MAGIC), x, y, z, 0});
}

}  // namespace moec
