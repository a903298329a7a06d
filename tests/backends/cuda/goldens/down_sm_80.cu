// t_product_few: 128 threads, 71696 bytes, DeviceGrid(per_multiprocessor=2), tokens (0, 170)
// t_product: 256 threads, 81936 bytes, DeviceGrid(per_multiprocessor=1), tokens (170, None)
#include "moec/matmul/warps.cuh"
MOEC_DEVICE void t_product_few_value(float a0, float e0, float e1, float (&out)[1]) {
  const float v0 = a0 + e1;
  const float v1 = v0 * e0;
  out[0] = v1;
}
struct t_product_few_epilogue {
  using Out = moec::bf16;
  static constexpr int results = 1;
  const float* p0;
  const float* p1;
  Out* out0;
  struct Row {
    float e0;
    const float* e1;
  };
  MOEC_DEVICE Row row(int row, int expert, int slot) const {
    return {moec::load(p0 + slot), p1 + (moec::i64)expert * 100 + 0};
  }
  MOEC_DEVICE void value(const Row& row, int column, const float (&sums)[1],
                         float (&out)[1]) const {
    t_product_few_value(sums[0], row.e0, moec::load(row.e1 + column), out);
  }
  MOEC_DEVICE Out* to(int n) const {
    return out0;
  }
};

MOEC_KERNEL(128, 2) t_product_few(const moec::bf16* lhs0, const int* offsets, const int* slots, const moec::bf16* weight0, const float* p0, const float* p1, moec::bf16* out0, int tokens) {
  MOEC_SHARED(shared);
  using Tile = moec::WarpTile<moec::bf16, 1, 64, 100, 1, 16, 64, 7, 1, 4, false>;
  const moec::bf16* const lhs[] = {lhs0};
  const moec::bf16* const rhs[] = {weight0};
  moec::multiply_by_warps<Tile>(shared, lhs, moec::Plan<4, 3, false>{offsets, slots, tokens}, rhs, t_product_few_epilogue{p0, p1, out0});
}

// t_product: tile chosen by the cost model
MOEC_DEVICE void t_product_value(float a0, float e0, float e1, float (&out)[1]) {
  const float v0 = a0 + e1;
  const float v1 = v0 * e0;
  out[0] = v1;
}
struct t_product_epilogue {
  using Out = moec::bf16;
  static constexpr int results = 1;
  const float* p0;
  const float* p1;
  Out* out0;
  struct Row {
    float e0;
    const float* e1;
  };
  MOEC_DEVICE Row row(int row, int expert, int slot) const {
    return {moec::load(p0 + slot), p1 + (moec::i64)expert * 100 + 0};
  }
  MOEC_DEVICE void value(const Row& row, int column, const float (&sums)[1],
                         float (&out)[1]) const {
    t_product_value(sums[0], row.e0, moec::load(row.e1 + column), out);
  }
  MOEC_DEVICE Out* to(int n) const {
    return out0;
  }
};

MOEC_KERNEL(256, 1) t_product(const moec::bf16* lhs0, const int* offsets, const int* slots, const moec::bf16* weight0, const float* p0, const float* p1, moec::bf16* out0, int tokens) {
  MOEC_SHARED(shared);
  using Tile = moec::WarpTile<moec::bf16, 1, 64, 100, 1, 128, 32, 4, 2, 4, false>;
  const moec::bf16* const lhs[] = {lhs0};
  const moec::bf16* const rhs[] = {weight0};
  moec::multiply_by_warps<Tile>(shared, lhs, moec::Plan<4, 3, false>{offsets, slots, tokens}, rhs, t_product_epilogue{p0, p1, out0});
}
