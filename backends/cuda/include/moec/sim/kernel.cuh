// What a kernel is made of, on the simulator.
#pragma once
#include <cstring>

#include "moec/sim/launch.h"
#include "moec/sim/state.h"

#define MOEC_KERNEL(threads, blocks) static void
#define MOEC_DEVICE inline
#define MOEC_CONSTANT static const
#define MOEC_GRID_CONSTANT const
#define MOEC_RESTRICT __restrict__
#define MOEC_UNROLL
#define MOEC_UNROLL_BY(count)
#define MOEC_SHARED(name) moec::u8* name = moec::sim::block->shared
#define __device__

namespace moec {

inline int thread_index() { return sim::self->index; }
inline int block_threads() { return sim::block->threads; }
inline int block_index() { return sim::block->index; }
inline int grid_blocks() { return sim::block->blocks; }
inline int lane_index() { return sim::self->index & 31; }
inline int warp_index() { return sim::self->index >> 5; }

inline u32 shared_address(const void* pointer) { return (u32)((const u8*)pointer - sim::block->shared); }

namespace sim {

// Accesses by threads; single bytes are not watched, as cells are wider.
inline void read(const void* at, u64 bytes, const char* primitive, Where where, Use use = Use::read) {
  if (bytes == 1) return;
  const u64 offset = offset_of(at, bytes, primitive, where);
  if (offset % bytes) fail(primitive, where, "an address that is not aligned");
  check_read(offset, bytes, self->knows, false, self->index, self->knows.seen[self->index], use, primitive, where);
}
inline void write(const void* at, u64 bytes, const char* primitive, Where where) {
  if (bytes == 1) return;
  const u64 offset = offset_of(at, bytes, primitive, where);
  if (offset % bytes) fail(primitive, where, "an address that is not aligned");
  check_write(offset, bytes, self->knows, false, self->index, self->knows.seen[self->index], Proxy::generic, primitive,
              where);
}

// An index, and where in the source it stands.
struct Index {
  int value;
  Where where;
  Index(int value, Where where = Where::current()) : value(value), where(where) {}
};

template <class T>
struct Element {
  T* at;
  Where where;
  operator T() const {
    read(at, sizeof(T), "a read", where);
    return *at;
  }
  const Element& operator=(T value) const {
    write(at, sizeof(T), "a write", where);
    *at = value;
    return *this;
  }
  const Element& operator=(const Element& other) const { return *this = (T)other; }
  const Element& operator+=(T value) const { return *this = (T)(T(*this) + value); }
  const Element& operator-=(T value) const { return *this = (T)(T(*this) - value); }
};

}  // namespace sim

template <class T>
struct Shared {
  T* data;
  sim::Element<T> operator[](sim::Index i) const { return {data + i.value, i.where}; }
  Shared operator+(int i) const { return {data + i}; }
};
template <class T>
Shared<T> shared_array(void* at) {
  return {(T*)at};
}

inline Pair load_shared_pair(const void* at, sim::Where where = sim::Where::current()) {
  sim::read(at, 8, "load_shared_pair", where);
  return *(const Pair*)at;
}
inline Quad load_shared(const void* at, sim::Where where = sim::Where::current()) {
  sim::read(at, 16, "load_shared", where);
  return *(const Quad*)at;
}
inline void store_shared(void* at, const Quad& value, sim::Where where = sim::Where::current()) {
  sim::write(at, 16, "store_shared", where);
  *(Quad*)at = value;
}

}  // namespace moec
