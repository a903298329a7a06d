// cp.async, and what a tensor map says.
#include "moec/primitives.cuh"

namespace moec {
namespace sim {

bool encode_map(TensorMap& map, const void* base, const i64 (&sizes)[3], const i64 (&strides)[2], const i64 (&box)[3],
                int swizzle, int element_bytes) {
  if ((u64)base % 16 || (swizzle != 0 && swizzle != 128)) return false;
  if (box[0] * element_bytes % 16 || (swizzle && box[0] * element_bytes > swizzle)) return false;
  for (int i = 0; i < 3; i++)
    if (sizes[i] < 1 || sizes[i] > (i64)1 << 32 || box[i] < 1 || box[i] > 256) return false;
  for (const i64 stride : strides)
    if (stride % 16 || stride < 0 || stride >= (i64)1 << 40) return false;
  const u64 fields[16] = {TENSOR_MAP,      (u64)base,   (u64)sizes[0], (u64)sizes[1], (u64)sizes[2],
                          (u64)strides[0], (u64)strides[1], (u64)box[0],   (u64)box[1],   (u64)box[2],
                          (u64)swizzle,    (u64)element_bytes};
  std::memcpy(map.opaque, fields, sizeof fields);
  return true;
}

void wait_copies(int pending, Where) {
  auto& groups = self->groups;
  while ((int)groups.size() - 1 > pending) {
    for (const Copy& copy : groups.front()) {
      if (copy.bytes) std::memcpy(copy.to, copy.from, copy.bytes);
      std::memset(copy.to + copy.bytes, 0, 16 - copy.bytes);
      stamp((u64)(copy.to - block->shared), 16, self->index, self->knows.seen[self->index], Proxy::generic);
    }
    groups.erase(groups.begin());
  }
}

}  // namespace sim

using namespace sim;

void copy_async(void* to, const void* from, int bytes, Where where) {
  const u64 offset = offset_of(to, 16, "copy_async", where);
  if (offset % 16 || (u64)from % 16) fail("copy_async", where, "an address that is not aligned to 16 bytes");
  if (bytes < 0 || bytes > 16) fail("copy_async", where, "a wrong number of bytes");
  check_write(offset, 16, self->knows, false, self->index, self->knows.seen[self->index], Proxy::pending, "copy_async",
              where);
  std::memset(to, 0xFF, 16);
  self->groups.back().push_back({(u8*)to, (const u8*)from, bytes, 0});
}

}  // namespace moec

// For hosts that are not C++: what cuTensorMapEncodeTiled does for three axes.
extern "C" int moec_sim_encode_map(void* map, const void* base, const long long* sizes, const long long* strides,
                                   const long long* box, int swizzle, int element_bytes) {
  using moec::i64;
  const i64 s[3] = {sizes[0], sizes[1], sizes[2]}, t[2] = {strides[0], strides[1]}, b[3] = {box[0], box[1], box[2]};
  return moec::sim::encode_map(*(moec::TensorMap*)map, base, s, t, b, swizzle, element_bytes) ? 0 : 1;
}
