// Who may touch which cell of shared memory.
#include <algorithm>

#include "moec/sim/state.h"

namespace moec::sim {

void join(Clock& into, const Clock& from) {
  if (into.size() < from.size()) into.resize(from.size(), 0);
  u32* a = into.data();
  const u32* b = from.data();
  for (size_t i = 0, n = from.size(); i < n; i++) a[i] = std::max(a[i], b[i]);
}

void release(Knowledge& into) {
  join(into.seen, self->knows.seen);
  join(into.fenced, self->knows.fenced);
  self->knows.seen[self->index]++;
}

void acquire(const Knowledge& from) {
  join(self->knows.seen, from.seen);
  join(self->knows.fenced, from.fenced);
}

u64 offset_of(const void* at, u64 bytes, const char* primitive, Where where) {
  if (!in_shared(at) || (const u8*)at + bytes > block->shared + block->shared_bytes)
    fail(primitive, where, "an address outside of the block's shared memory");
  return (u64)((const u8*)at - block->shared);
}

namespace {

std::string byte(u64 offset) { return "shared byte " + std::to_string(offset); }

void forget(Cell& cell) {
  cell.last.clock = 0;
  if (cell.more) {
    block->more[cell.more].clear();
    block->free_more.push_back(cell.more);
    cell.more = 0;
  }
}

void remember(Cell& cell, const Access& access) {
  if (!cell.last.clock || cell.last.agent == access.agent) {
    cell.last = access;
    return;
  }
  if (!cell.more) {
    if (block->free_more.empty()) {
      block->free_more.push_back((u32)block->more.size());
      block->more.emplace_back();
    }
    cell.more = block->free_more.back();
    block->free_more.pop_back();
  }
  for (Access& old : block->more[cell.more])
    if (old.agent == access.agent) {
      old = access;
      return;
    }
  block->more[cell.more].push_back(access);
}

[[noreturn]] void collide(u64 offset, int agent, u16 from, const char* what, const char* primitive, Where where) {
  fail(primitive, where,
       byte(offset) + " " + what + " by " + name_of_agent(agent) + " (" + name_of_origin(from) +
           "), and nothing orders the two");
}

// What every access needs: to know the cell's last write.
void know_write(const Cell& cell, u64 offset, const Knowledge& knows, bool async, const char* primitive, Where where) {
  if (cell.proxy == Proxy::none) return;
  if (cell.proxy == Proxy::pending)
    fail(primitive, where,
         byte(offset) + " is still being copied (" + name_of_origin(cell.origin) + " of " + name_of_agent(cell.agent) +
             ", which has not waited for it)");
  if (knows.seen[cell.agent] < cell.clock) collide(offset, cell.agent, cell.origin, "is written", primitive, where);
  if (async && cell.proxy == Proxy::generic && knows.fenced[cell.agent] < cell.clock)
    fail(primitive, where,
         byte(offset) + " was written by " + name_of_agent(cell.agent) + " (" + name_of_origin(cell.origin) +
             ") without a fence_async_proxy behind it");
}

}  // namespace

void check_read(u64 offset, u64 bytes, const Knowledge& knows, bool async, int agent, u32 clock, Use use,
                const char* primitive, Where where) {
  const Access access{clock, (u16)agent, origin(primitive, where), use};
  for (u64 at = offset / 2; at < (offset + bytes + 1) / 2; at++) {
    Cell& cell = block->cells[at];
    if (cell.proxy == Proxy::none) fail(primitive, where, byte(at * 2) + " is read, and nothing was written there");
    know_write(cell, at * 2, knows, async, primitive, where);
    const auto one = [&](const Access& old) {
      if (old.clock && old.use != use && knows.seen[old.agent] < old.clock)
        collide(at * 2, old.agent, old.origin, "is used", primitive, where);
    };
    one(cell.last);
    if (cell.more)
      for (const Access& old : block->more[cell.more]) one(old);
    remember(cell, access);
  }
}

void check_write(u64 offset, u64 bytes, const Knowledge& knows, bool async, int agent, u32 clock, Proxy proxy,
                 const char* primitive, Where where) {
  const u16 from = origin(primitive, where);
  for (u64 at = offset / 2; at < (offset + bytes + 1) / 2; at++) {
    Cell& cell = block->cells[at];
    know_write(cell, at * 2, knows, async, primitive, where);
    const auto one = [&](const Access& old) {
      if (old.clock && knows.seen[old.agent] < old.clock)
        collide(at * 2, old.agent, old.origin, "is read", primitive, where);
    };
    one(cell.last);
    if (cell.more)
      for (const Access& old : block->more[cell.more]) one(old);
    forget(cell);
    cell.clock = clock;
    cell.agent = (u16)agent;
    cell.origin = from;
    cell.proxy = proxy;
  }
}

void stamp(u64 offset, u64 bytes, int agent, u32 clock, Proxy proxy) {
  for (u64 at = offset / 2; at < (offset + bytes + 1) / 2; at++) {
    Cell& cell = block->cells[at];
    cell.clock = clock;
    cell.agent = (u16)agent;
    cell.proxy = proxy;
  }
}

}  // namespace moec::sim
