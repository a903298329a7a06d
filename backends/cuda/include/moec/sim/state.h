// What the simulator knows of a block: its threads (fibres), its shared memory, and who may see what of it.
//
// Order is known by vector clocks, as race detectors do: an agent (a thread, a warpgroup's products, a barrier's copies)
// has a clock, and everybody knows up to where he has seen the others.  Each cell of 2 bytes of shared memory keeps its
// last write and the accesses since; an access that does not know those that it collides with is an error, in whatever
// order the fibres happened to run.  Copies and products happen as late as the program allows, over poison.
#pragma once
#include <csetjmp>
#include <cstdint>
#include <deque>
#include <source_location>
#include <string>
#include <ucontext.h>
#include <vector>

#include "moec/types.cuh"

namespace moec::sim {

using Where = std::source_location;
using Clock = std::vector<u32>;  // by agent

constexpr int MAX_WARPGROUPS = 8, MAX_BARRIERS = 64, MAX_NAMED = 16;

void join(Clock& into, const Clock& from);

enum class Proxy : u8 { none, generic, pending, async };  // of a cell's last write; pending: a copy_async not waited for
enum class Use : u8 { read, atomic };

struct Access {
  u32 clock = 0;
  u16 agent = 0, origin = 0;
  Use use = Use::read;
};

struct Cell {
  u32 clock = 0;
  u16 agent = 0, origin = 0;
  Proxy proxy = Proxy::none;
  Access last;   // the latest access since the write; clock 0: none
  u32 more = 0;  // where the others are; 0: there are none
};

// What is released and acquired: what is known, and what of it is known to be visible to wgmma and TMA.
struct Knowledge {
  Clock seen, fenced;
};

struct Copy {
  u8* to;
  const u8* from;
  int bytes;
  u16 origin;
};

struct Thread {
  int index = 0;
  bool done = false, started = false;
  ucontext_t context;
  jmp_buf at;
  u8* stack = nullptr;
  Knowledge knows;
  std::vector<std::vector<Copy>> groups{1};
  bool (*ready)(const void*, u64) = nullptr;  // null: it can run
  const void* waits_for = nullptr;
  u64 ticket = 0;
  const char* primitive = "";
  Where place;
};

// A point where some threads meet; the last that comes does what they came for.
struct Meeting {
  int arrived = 0;
  u64 generation = 0;
  const char* primitive = nullptr;
  Where place;
  void* given[128] = {};
};

struct Mbarrier {
  int count = 0, pending = 0, agent = 0;
  i64 owed = 0;
  u64 phases = 0;  // that have ended
  int made_by = 0;
  u32 made_at = 0;
  bool fenced = false;
  Knowledge coming, ended;
};

struct Named {
  int threads = 0, arrived = 0;
  u64 generation = 0;
  Knowledge coming, ended;
};

enum class Numbers : u8 { bf16, f16, i8 };  // of matrices; sums are f32, those of i8 i32

struct Product {
  u64 a, b;
  int columns;
  Numbers numbers;
  bool accumulate, transposed_a, transposed_b;
  bool registers = false;       // whether its first matrix is in registers, as `fragment` of each thread
  u32* sums[128] = {};         // their bits
  const u32* fragment[128] = {};
  u32 given[128][4] = {};       // what these held when the product was asked for
};

// The sums of products under way, by thread.
struct Sums {
  int columns = 0;
  u32* at[128] = {};
  std::vector<u32> made[128];  // as bits
};

// Registers that were a matrix of products, and what they held at the last fence.
struct Fenced {
  const u32* at[128] = {};
  u32 held[128][4] = {};
};

struct Warpgroup {
  Meeting meeting;
  std::vector<std::vector<Product>> groups{1};
  std::vector<u32> group_clock{};
  u32 clock = 0;
  bool fenced = false;
  int registers = 0;
  std::vector<Sums> sums{};
  std::vector<Fenced> matrices{};
};

struct BoxCopy {
  u8* to;
  TensorMap map;
  int barrier, x, y, z, age;
};

struct Block {
  int index = 0, blocks = 0, threads = 0;
  u8* shared = nullptr;
  u64 shared_bytes = 0;
  std::vector<Cell> cells;
  std::deque<Thread> thread;
  std::deque<Mbarrier> barriers;
  Named named[MAX_NAMED];
  std::deque<Meeting> warps;
  std::deque<Warpgroup> warpgroups;
  std::vector<BoxCopy> boxes;
  std::vector<std::vector<Access>> more{1};
  std::vector<u32> free_more;
  u64 progress = 0;
  int agents = 0;
};

extern Block* block;
extern Thread* self;

[[noreturn]] void fail(const char* primitive, Where where, const std::string& text);
std::string name_of_agent(int agent);
u16 origin(const char* primitive, Where where);
std::string name_of_origin(u16 index);

// Lets other threads run until `ready(what, ticket)`.
void wait_until(bool (*ready)(const void*, u64), const void* what, u64 ticket, const char* primitive, Where where);
// Meets `members` threads, of which this is number `member`; true for the last that comes, which must call `part`.
bool meet(Meeting& meeting, int members, int member, void* given, const char* primitive, Where where);
void part(Meeting& meeting);

// Accesses to shared memory: who does it, what he knows, and what he does.
u64 offset_of(const void* at, u64 bytes, const char* primitive, Where where);
void check_read(u64 offset, u64 bytes, const Knowledge& knows, bool async, int agent, u32 clock, Use use,
                const char* primitive, Where where);
void check_write(u64 offset, u64 bytes, const Knowledge& knows, bool async, int agent, u32 clock, Proxy proxy,
                 const char* primitive, Where where);
void stamp(u64 offset, u64 bytes, int agent, u32 clock, Proxy proxy);
void deliver(const BoxCopy& box);

void release(Knowledge& into);
void acquire(const Knowledge& from);

inline bool in_shared(const void* at) {
  return (const u8*)at >= block->shared && (const u8*)at < block->shared + block->shared_bytes;
}

}  // namespace moec::sim
