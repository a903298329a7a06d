// Products of warps and of warpgroups.
#include <algorithm>
#include <bit>
#include <cmath>

#include "moec/primitives.cuh"

namespace moec {
namespace sim {

namespace {

constexpr u32 UNDER_WAY = 0xf693f6a1;  // what registers hold while wgmma works on them

float value(u16 bits, Numbers numbers) { return numbers == Numbers::f16 ? to_float(f16{bits}) : to_float(bf16{bits}); }

// Elements along k that an instruction multiplies, 32 bytes.
int depth_of(Numbers numbers) { return numbers == Numbers::i8 ? 32 : 16; }

struct Lane {
  u32* to;
  const u8* row;
};
struct Fragments {
  void* d;
  u32 a[4], b[2];
};

}  // namespace

void load_matrices(u32* to, const void* row, bool transposed, const char* primitive, Where where) {
  read(row, 16, primitive, where);
  Lane lane{to, (const u8*)row};
  Meeting& meeting = block->warps[warp_index()];
  if (!meet(meeting, 32, lane_index(), &lane, primitive, where)) return;
  u16 matrix[4][8][8];
  for (int i = 0; i < 32; i++) std::memcpy(matrix[i / 8][i % 8], ((Lane*)meeting.given[i])->row, 16);
  for (int i = 0; i < 32; i++)
    for (int m = 0; m < 4; m++) {
      const int r = i / 4, c = i % 4 * 2;
      const u16 low = transposed ? matrix[m][c][r] : matrix[m][r][c];
      const u16 high = transposed ? matrix[m][c + 1][r] : matrix[m][r][c + 1];
      ((Lane*)meeting.given[i])->to[m] = low | (u32)high << 16;
    }
  part(meeting);
}

u32 transpose_matrix(u32 matrix, Where where) {
  u32 word = matrix;
  Meeting& meeting = block->warps[warp_index()];
  if (!meet(meeting, 32, lane_index(), &word, "transpose_matrix", where)) return word;
  u16 element[8][8];
  for (int i = 0; i < 32; i++)
    for (int odd = 0; odd < 2; odd++) element[i % 4 * 2 + odd][i / 4] = (u16)(*(u32*)meeting.given[i] >> 16 * odd);
  for (int i = 0; i < 32; i++) {
    const int c = i % 4 * 2;
    *(u32*)meeting.given[i] = element[i / 4][c] | (u32)element[i / 4][c + 1] << 16;
  }
  part(meeting);
  return word;
}

namespace {

void multiply_floats(const Meeting& meeting, Numbers numbers) {
  float A[16][16], B[16][8];
  for (int i = 0; i < 32; i++) {
    const Fragments& of = *(Fragments*)meeting.given[i];
    const int l = i / 4, c = i % 4 * 2;
    for (int odd = 0; odd < 2; odd++) {
      for (int w = 0; w < 4; w++) A[l + w % 2 * 8][c + w / 2 * 8 + odd] = value((u16)(of.a[w] >> 16 * odd), numbers);
      for (int w = 0; w < 2; w++) B[c + w * 8 + odd][l] = value((u16)(of.b[w] >> 16 * odd), numbers);
    }
  }
  for (int i = 0; i < 32; i++) {
    float* const d = (float*)((Fragments*)meeting.given[i])->d;
    for (int n = 0; n < 4; n++) {
      const int r = i / 4 + n / 2 * 8, c = i % 4 * 2 + n % 2;
      for (int k = 0; k < 16; k++) d[n] += A[r][k] * B[k][c];
    }
  }
}

void multiply_whole_numbers(const Meeting& meeting) {
  i8 A[16][32], B[32][8];
  for (int i = 0; i < 32; i++) {
    const Fragments& of = *(Fragments*)meeting.given[i];
    const int l = i / 4, c = i % 4 * 4;
    for (int n = 0; n < 4; n++) {
      for (int w = 0; w < 4; w++) A[l + w % 2 * 8][c + w / 2 * 16 + n] = (i8)(of.a[w] >> 8 * n);
      for (int w = 0; w < 2; w++) B[c + w * 16 + n][l] = (i8)(of.b[w] >> 8 * n);
    }
  }
  for (int i = 0; i < 32; i++) {
    int* const d = (int*)((Fragments*)meeting.given[i])->d;
    for (int n = 0; n < 4; n++) {
      const int r = i / 4 + n / 2 * 8, c = i % 4 * 2 + n % 2;
      u32 sum = (u32)d[n];
      for (int k = 0; k < 32; k++) sum += (u32)(A[r][k] * B[k][c]);
      d[n] = (int)sum;
    }
  }
}

}  // namespace

void multiply(void* d, const u32* a, u32 b0, u32 b1, Numbers numbers, Where where) {
  Fragments mine{d, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  Meeting& meeting = block->warps[warp_index()];
  if (!meet(meeting, 32, lane_index(), &mine, "multiply", where)) return;
  if (numbers == Numbers::i8) multiply_whole_numbers(meeting);
  else multiply_floats(meeting, numbers);
  part(meeting);
}

namespace {

// The byte of element (i, k) of a matrix that a descriptor tells of; i along m or n.
u64 element(u64 descriptor, bool transposed, int i, int k) {
  const u64 at = (descriptor & 0x3fff) << 4, leading = (descriptor >> 16 & 0x3fff) << 4,
            stride = (descriptor >> 32 & 0x3fff) << 4;
  const u64 plain = transposed ? at + i / 64 * leading + i % 64 * 2 + k / 8 * stride + k % 8 * 128
                               : at + i / 8 * stride + i % 8 * 128 + k * 2;
  return plain ^ (plain >> 7 & 7) << 4;
}

// Elements lie by eights along the axis that is innermost; each sixteen bytes are looked at once.
void check_operand(u64 descriptor, bool transposed, int rows, const Knowledge& knows, int agent, u32 clock, Where where) {
  if (descriptor >> 62 != 1) fail("wgmma", where, "a descriptor that is not swizzled by 128 bytes");
  for (int i = 0; i < rows; i += transposed ? 8 : 1)
    for (int k = 0; k < 16; k += transposed ? 1 : 8) {
      const u64 at = element(descriptor, transposed, i, k);
      if (at + 16 > block->shared_bytes) fail("wgmma", where, "a matrix beyond the block's shared memory");
      check_read(at, 16, knows, true, agent, clock, Use::read, "wgmma", where);
    }
}

// The same of a matrix of whole numbers, whose lines along k are as long.
u64 byte_element(u64 descriptor, int i, int k) { return element(descriptor, false, i, k / 2) + k % 2; }

void load(float* to, u64 descriptor, bool transposed, int rows, Numbers of) {
  for (int i = 0; i < rows; i++)
    for (int k = 0; k < 16; k++) {
      u16 bits;
      std::memcpy(&bits, block->shared + element(descriptor, transposed, i, k), 2);
      to[k * rows + i] = value(bits, of);
    }
}
void load(u32* to, u64 descriptor, bool, int rows, Numbers) {
  for (int i = 0; i < rows; i++)
    for (int k = 0; k < 32; k++) to[k * rows + i] = (u32)(i8)block->shared[byte_element(descriptor, i, k)];
}

int row_of(int thread, int n) { return thread / 32 * 16 + thread % 32 / 4 + (n % 4) / 2 * 8; }
int column_of(int thread, int n) { return n / 4 * 8 + thread % 4 * 2 + n % 2; }

// A matrix of 64 lines of 32 bytes that the threads have in registers.
void load_fragments(float* to, const Product& product) {
  for (int t = 0; t < 128; t++)
    for (int n = 0; n < 8; n++) {
      const int word = n / 2, row = t / 32 * 16 + t % 32 / 4 + word % 2 * 8, k = t % 4 * 2 + word / 2 * 8 + n % 2;
      to[k * 64 + row] = value((u16)(product.given[t][word] >> 16 * (n % 2)), product.numbers);
    }
}
void load_fragments(u32* to, const Product& product) {
  for (int t = 0; t < 128; t++)
    for (int n = 0; n < 16; n++) {
      const int word = n / 4, row = t / 32 * 16 + t % 32 / 4 + word % 2 * 8, k = t % 4 * 4 + word / 2 * 16 + n % 4;
      to[k * 64 + row] = (u32)(i8)(product.given[t][word] >> 8 * (n % 4));
    }
}

Sums* sums_of(Warpgroup& group, const Product& product) {
  for (Sums& one : group.sums)
    if (one.at[0] == product.sums[0]) return &one;
  return nullptr;
}

// Number: float, or u32 for whole numbers, whose sums wrap.
template <class Number>
void execute(Warpgroup& group, const Product& product) {
  const int columns = product.columns, depth = depth_of(product.numbers);
  std::vector<Number> a(depth * 64), b(depth * columns), c(64 * columns);
  if (product.registers) load_fragments(a.data(), product);
  else load(a.data(), product.a, product.transposed_a, 64, product.numbers);
  load(b.data(), product.b, product.transposed_b, columns, product.numbers);
  Sums& sums = *sums_of(group, product);
  if (product.accumulate)
    for (int t = 0; t < 128; t++)
      for (int n = 0; n < columns / 2; n++)
        c[row_of(t, n) * columns + column_of(t, n)] = std::bit_cast<Number>(sums.made[t][n]);
  for (int r = 0; r < 64; r++)
    for (int k = 0; k < depth; k++) {
      const Number left = a[k * 64 + r];
      const Number* from = b.data() + k * columns;
      Number* to = c.data() + r * columns;
      for (int n = 0; n < columns; n++) to[n] += left * from[n];
    }
  for (int t = 0; t < 128; t++)
    for (int n = 0; n < columns / 2; n++)
      sums.made[t][n] = std::bit_cast<u32>(c[row_of(t, n) * columns + column_of(t, n)]);
}

bool under_way(const Warpgroup& group, const Sums& sums) {
  for (const auto& products : group.groups)
    for (const Product& product : products)
      if (product.sums[0] == sums.at[0]) return true;
  return false;
}

Warpgroup& mine() { return block->warpgroups[self->index / 128]; }

struct Asked {
  Product product;
  const Knowledge* knows;
};

// Whether registers that are a matrix of `product` were written since the last fence.
void check_fragments(Warpgroup& group, const Product& product, Where where) {
  for (const Fenced& one : group.matrices)
    if (one.at[0] == product.fragment[0])
      for (int t = 0; t < 128; t++)
        if (one.at[t] == product.fragment[t] && std::memcmp(one.held[t], product.given[t], 16))
          fail("wgmma", where, "registers of a matrix were written behind the wgmma_fence");
  if (std::any_of(group.matrices.begin(), group.matrices.end(),
                  [&](const Fenced& one) { return one.at[0] == product.fragment[0]; }))
    return;
  Fenced& made = group.matrices.emplace_back();
  std::copy_n(product.fragment, 128, made.at);
  std::memcpy(made.held, product.given, sizeof made.held);
}

// One thread asks for a product; the last of the warpgroup starts it.
void start(Asked& asked, Where where) {
  Warpgroup& group = mine();
  if (!meet(group.meeting, 128, self->index % 128, &asked, "wgmma", where)) return;
  if (!group.fenced) fail("wgmma", where, "no wgmma_fence since registers were last touched");
  Product product = asked.product;
  // What all 128 threads know: the least of each.
  Knowledge least = *((Asked*)group.meeting.given[0])->knows;
  for (int t = 0; t < 128; t++) {
    const Asked& other = *(Asked*)group.meeting.given[t];
    if (other.product.a != product.a || other.product.b != product.b || other.product.accumulate != product.accumulate)
      fail("wgmma", where, "threads of a warpgroup give different matrices");
    product.sums[t] = other.product.sums[0];
    product.fragment[t] = other.product.fragment[0];
    if (product.registers) std::memcpy(product.given[t], product.fragment[t], 16);
    for (size_t i = 0; i < least.seen.size(); i++) {
      least.seen[i] = std::min(least.seen[i], other.knows->seen[i]);
      least.fenced[i] = std::min(least.fenced[i], other.knows->fenced[i]);
    }
  }
  const int agent = block->threads + self->index / 128;
  least.seen[agent] = ++group.clock;
  if (product.registers) check_fragments(group, product, where);
  else check_operand(product.a, product.transposed_a, 64, least, agent, group.clock, where);
  check_operand(product.b, product.transposed_b, product.columns, least, agent, group.clock, where);
  if (const Sums* before = sums_of(group, product)) {
    if (before->columns != product.columns) fail("wgmma", where, "other products work on some of these sums");
  } else {
    Sums& sums = group.sums.emplace_back();
    sums.columns = product.columns;
    for (int t = 0; t < 128; t++) {
      sums.at[t] = product.sums[t];
      sums.made[t].assign(product.sums[t], product.sums[t] + product.columns / 2);
      std::fill_n(product.sums[t], product.columns / 2, UNDER_WAY);
    }
  }
  group.groups.back().push_back(product);
  part(group.meeting);
}

}  // namespace

void wgmma(void* sums, int columns, u64 a, u64 b, bool accumulate, Numbers numbers, bool transposed_a,
           bool transposed_b, Where where) {
  Asked asked{{a, b, columns, numbers, accumulate, transposed_a, transposed_b, false, {(u32*)sums}}, &self->knows};
  start(asked, where);
}

void wgmma_from_registers(void* sums, int columns, const u32* a, u64 b, bool accumulate, Numbers numbers, Where where) {
  Asked asked{{0, b, columns, numbers, accumulate, false, false, true, {(u32*)sums}, {a}}, &self->knows};
  start(asked, where);
}

void wgmma_commit(Where where) {
  Warpgroup& group = mine();
  if (!meet(group.meeting, 128, self->index % 128, nullptr, "wgmma_commit", where)) return;
  group.groups.emplace_back();
  group.group_clock.push_back(group.clock);
  group.fenced = false;
  part(group.meeting);
}

void wgmma_wait(int pending, Where where) {
  Warpgroup& group = mine();
  if (!meet(group.meeting, 128, self->index % 128, &self->knows, "wgmma_wait", where)) return;
  while ((int)group.groups.size() - 1 > pending) {
    for (const Product& product : group.groups.front()) {
      for (int t = 0; product.registers && t < 128; t++)
        if (std::memcmp(product.fragment[t], product.given[t], 16))
          fail("wgmma_wait", where, "registers of a matrix were changed while wgmma worked on it");
      if (product.numbers == Numbers::i8) execute<u32>(group, product);
      else execute<float>(group, product);
    }
    group.groups.erase(group.groups.begin());
    const int agent = block->threads + self->index / 128;
    for (int t = 0; t < 128; t++) ((Knowledge*)group.meeting.given[t])->seen[agent] = group.group_clock.front();
    group.group_clock.erase(group.group_clock.begin());
  }
  std::erase_if(group.sums, [&](const Sums& sums) {
    if (under_way(group, sums)) return false;
    for (int t = 0; t < 128; t++)
      for (int n = 0; n < sums.columns / 2; n++) {
        if (sums.at[t][n] != UNDER_WAY) fail("wgmma_wait", where, "sums were touched while wgmma worked on them");
        sums.at[t][n] = sums.made[t][n];
      }
    return true;
  });
  group.fenced = false;
  part(group.meeting);
}

}  // namespace sim

void wgmma_fence(sim::Where where) {
  using namespace sim;
  Warpgroup& group = mine();
  if (!meet(group.meeting, 128, self->index % 128, nullptr, "wgmma_fence", where)) return;
  group.fenced = true;
  for (Fenced& one : group.matrices)
    for (int t = 0; t < 128; t++) std::memcpy(one.held[t], one.at[t], 16);
  part(group.meeting);
}

}  // namespace moec
