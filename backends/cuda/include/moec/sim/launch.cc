// Fibres, their schedule, and the life of a block.
#include "moec/sim/launch.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <set>

#include "moec/sim/state.h"

namespace moec::sim {

Block* block = nullptr;
Thread* self = nullptr;

namespace {

constexpr size_t STACK = 128 << 10;
constexpr u64 CANARY = 0x6d6f65636d6f6563;
constexpr int REGISTERS = 65536;

jmp_buf scheduler;
std::string message;
u64 order = 0;
void (*kernel_body)(void*);
void* kernel_context;

std::vector<std::pair<std::string, unsigned>> origins;

void enter() {
  kernel_body(kernel_context);
  self->done = true;
  block->progress++;
  _longjmp(scheduler, 1);
}

// Runs the thread until it waits or ends.  False when it failed.
bool resume(Thread& thread) {
  self = &thread;
  const int back = _setjmp(scheduler);
  if (back == 0) {
    if (thread.started) _longjmp(thread.at, 1);
    thread.started = true;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack;
    thread.context.uc_stack.ss_size = STACK;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, enter, 0);
    setcontext(&thread.context);
  }
  return back == 1;
}

std::string describe(const Where& where) {
  const char* slash = std::strrchr(where.file_name(), '/');
  return std::string(slash ? slash + 1 : where.file_name()) + ":" + std::to_string(where.line());
}

std::string name_of_thread(int thread) {
  return "thread " + std::to_string(thread) + " (warp " + std::to_string(thread / 32) + ")";
}

void deadlock() {
  std::set<std::string> waits;
  std::string text;
  for (const Thread& thread : block->thread) {
    if (thread.done) continue;
    const std::string what = std::string(thread.primitive) + " at " + describe(thread.place);
    if (waits.insert(what).second) text += "; " + name_of_thread(thread.index) + " waits in " + what;
  }
  message = "block " + std::to_string(block->index) + ": deadlock" + text;
}

bool finish() {
  for (const Thread& thread : block->thread) {
    u64 canary;
    std::memcpy(&canary, thread.stack, 8);
    if (canary != CANARY) {
      message = name_of_thread(thread.index) + " used more than its stack";
      return false;
    }
    size_t copies = 0;
    for (const auto& group : thread.groups) copies += group.size();
    if (copies) message = name_of_thread(thread.index) + " ended with copies under way";
  }
  for (const Warpgroup& group : block->warpgroups)
    for (const auto& products : group.groups)
      if (!products.empty()) message = "a warpgroup ended with products under way";
  if (!block->boxes.empty()) message = "the block ended while TMA copied into its shared memory";
  for (size_t i = 0; i < block->barriers.size(); i++)
    if (block->barriers[i].owed) message = "the block ended while barrier " + std::to_string(i) + " is owed bytes";
  if (!message.empty()) message = "block " + std::to_string(block->index) + ": " + message;
  return message.empty();
}

bool run_block(std::mt19937_64& random) {
  std::vector<int> sequence(block->threads);
  for (int i = 0; i < block->threads; i++) sequence[i] = order == 1 ? block->threads - 1 - i : i;
  int idle = 0;
  for (;;) {
    if (order > 1) std::rotate(sequence.begin(), sequence.begin() + random() % sequence.size(), sequence.end());
    const u64 before = block->progress;
    int left = 0;
    for (const int index : sequence) {
      Thread& thread = block->thread[index];
      if (thread.done) continue;
      left++;
      if (thread.ready && !thread.ready(thread.waits_for, thread.ticket)) continue;
      thread.ready = nullptr;
      block->progress++;
      if (!resume(thread)) return false;
    }
    std::vector<BoxCopy> due;
    std::erase_if(block->boxes, [&](BoxCopy& box) {
      if (box.age++ == 0) return false;
      due.push_back(box);
      return true;
    });
    for (const BoxCopy& box : due) deliver(box);
    if (!left) return finish();
    if (block->progress != before || !due.empty() || !block->boxes.empty())
      idle = 0;
    else if (++idle > 2)
      return deadlock(), false;
  }
}

}  // namespace

void fail(const char* primitive, Where where, const std::string& text) {
  message = "block " + std::to_string(block->index) + ", " + name_of_thread(self->index) + ", " + primitive + " at " +
            describe(where) + ": " + text;
  _longjmp(scheduler, 2);
}

std::string name_of_agent(int agent) {
  if (agent < block->threads) return name_of_thread(agent);
  agent -= block->threads;
  if (agent < MAX_WARPGROUPS) return "products of warpgroup " + std::to_string(agent);
  return "copies of barrier " + std::to_string(agent - MAX_WARPGROUPS);
}

u16 origin(const char* primitive, Where where) {
  static const char* last_primitive = nullptr;
  static unsigned last_line = 0;
  static u16 last = 0;
  if (!origins.empty() && primitive == last_primitive && where.line() == last_line) return last;
  const auto key = std::make_pair(std::string(primitive) + " at " + describe(where), where.line());
  const auto found = std::find(origins.begin(), origins.end(), key);
  last = (u16)(found - origins.begin());
  if (found == origins.end()) origins.push_back(key);
  last_primitive = primitive;
  last_line = where.line();
  return last;
}

std::string name_of_origin(u16 index) { return origins[index].first; }

void wait_until(bool (*ready)(const void*, u64), const void* what, u64 ticket, const char* primitive, Where where) {
  if (ready(what, ticket)) return;
  Thread* const me = self;
  me->ready = ready;
  me->waits_for = what;
  me->ticket = ticket;
  me->primitive = primitive;
  me->place = where;
  if (_setjmp(me->at) == 0) _longjmp(scheduler, 1);
}

bool meet(Meeting& meeting, int members, int member, void* given, const char* primitive, Where where) {
  if (meeting.arrived == 0) {
    meeting.primitive = primitive;
    meeting.place = where;
  } else if (std::strcmp(meeting.primitive, primitive) != 0 || meeting.place.line() != where.line()) {
    fail(primitive, where,
         std::string("others of its warp or warpgroup are in ") + meeting.primitive + " at " + describe(meeting.place));
  }
  meeting.given[member] = given;
  block->progress++;
  if (++meeting.arrived == members) return true;
  const u64 generation = meeting.generation;
  wait_until([](const void* m, u64 old) { return ((const Meeting*)m)->generation != old; }, &meeting, generation,
             primitive, where);
  return false;
}

void part(Meeting& meeting) {
  meeting.arrived = 0;
  meeting.generation++;
  block->progress++;
}

int run_grid(const char* kernel, int blocks, int threads, u64 shared_bytes, void (*body)(void*), void* context) {
  message.clear();
  kernel_body = body;
  kernel_context = context;
  if (threads < 32 || threads > 1024 || threads % 32) {
    message = "a block of " + std::to_string(threads) + " threads";
    return 1;
  }
  std::mt19937_64 random(order);
  std::vector<int> sequence(blocks);
  for (int i = 0; i < blocks; i++) sequence[i] = order == 1 ? blocks - 1 - i : i;
  if (order > 1) std::shuffle(sequence.begin(), sequence.end(), random);
  const u64 room = (shared_bytes + 1023) / 1024 * 1024 + 1024;
  u8* const shared = (u8*)std::aligned_alloc(1024, room);
  u8* const stacks = (u8*)std::malloc(STACK * threads);
  for (const int index : sequence) {
    Block now;
    block = &now;
    now.index = index;
    now.blocks = blocks;
    now.threads = threads;
    now.shared = shared;
    now.shared_bytes = shared_bytes;
    now.agents = threads + MAX_WARPGROUPS + MAX_BARRIERS;
    now.cells.resize(shared_bytes / 2 + 1);
    now.warps.resize(threads / 32);
    now.warpgroups.resize((threads + 127) / 128);
    std::memset(shared, 0xFF, room);
    const int registers = std::min(255, REGISTERS / threads / 8 * 8);
    for (Warpgroup& group : now.warpgroups) group.registers = registers;
    now.thread.resize(threads);
    for (int i = 0; i < threads; i++) {
      Thread& thread = now.thread[i];
      thread.index = i;
      thread.stack = stacks + STACK * i;
      std::memcpy(thread.stack, &CANARY, 8);
      thread.knows.seen.assign(now.agents, 0);
      thread.knows.fenced.assign(now.agents, 0);
      thread.knows.seen[i] = 1;
    }
    const bool good = run_block(random);
    block = nullptr;
    if (!good) {
      message = std::string(kernel) + ": " + message;
      break;
    }
  }
  std::free(stacks);
  std::free(shared);
  return message.empty() ? 0 : 1;
}

const char* error() { return message.c_str(); }
void set_order(u64 seed) { order = seed; }

}  // namespace moec::sim

extern "C" const char* moec_sim_error() { return moec::sim::error(); }
extern "C" void moec_sim_order(unsigned long long seed) { moec::sim::set_order(seed); }
