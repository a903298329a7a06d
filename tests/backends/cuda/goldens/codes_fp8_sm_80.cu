// t_product_fp8_e4m3_few: 128 threads, 79884 bytes, DeviceGrid(per_multiprocessor=2), tokens (0, 384)
// t_product_fp8_e4m3: 256 threads, 92172 bytes, DeviceGrid(per_multiprocessor=1), tokens (384, None)
#include "moec/matmul/warps.cuh"
MOEC_DEVICE void t_product_fp8_e4m3_few_value(float a0, float (&out)[1]) {
  const float v0 = a0 + 0.0f;
  out[0] = v0;
}
struct t_product_fp8_e4m3_few_epilogue {
  using Out = moec::f16;
  static constexpr int results = 1;
  Out* out0;
  struct Row {
  };
  MOEC_DEVICE Row row(int row, int expert, int slot) const {
    return {};
  }
  MOEC_DEVICE void value(const Row& row, int column, const float (&sums)[1],
                         float (&out)[1]) const {
    t_product_fp8_e4m3_few_value(sums[0], out);
  }
  MOEC_DEVICE Out* to(int n) const {
    return out0;
  }
};

MOEC_KERNEL(128, 2) t_product_fp8_e4m3_few(const moec::f16* lhs0, const int* offsets, const int* slots, const moec::e4m3* codes0, const moec::bf16* scales0, moec::f16* out0, int tokens) {
  MOEC_SHARED(shared);
  using Tile = moec::CodedTile<moec::f16, moec::e4m3, moec::bf16, 0, 64, 16, 1, 16, 64, 13, 1, 4>;
  const moec::f16* const lhs[] = {lhs0};
  const moec::Coded<moec::e4m3, moec::bf16> rhs[] = {{codes0, scales0}};
  moec::multiply_by_warps<Tile>(shared, lhs, moec::Plan<3, 1, true>{offsets, slots, tokens}, rhs, t_product_fp8_e4m3_few_epilogue{out0});
}

// t_product_fp8_e4m3: tile chosen by the cost model
MOEC_DEVICE void t_product_fp8_e4m3_value(float a0, float (&out)[1]) {
  const float v0 = a0 + 0.0f;
  out[0] = v0;
}
struct t_product_fp8_e4m3_epilogue {
  using Out = moec::f16;
  static constexpr int results = 1;
  Out* out0;
  struct Row {
  };
  MOEC_DEVICE Row row(int row, int expert, int slot) const {
    return {};
  }
  MOEC_DEVICE void value(const Row& row, int column, const float (&sums)[1],
                         float (&out)[1]) const {
    t_product_fp8_e4m3_value(sums[0], out);
  }
  MOEC_DEVICE Out* to(int n) const {
    return out0;
  }
};

MOEC_KERNEL(256, 1) t_product_fp8_e4m3(const moec::f16* lhs0, const int* offsets, const int* slots, const moec::e4m3* codes0, const moec::bf16* scales0, moec::f16* out0, int tokens) {
  MOEC_SHARED(shared);
  using Tile = moec::CodedTile<moec::f16, moec::e4m3, moec::bf16, 0, 64, 16, 1, 128, 32, 5, 2, 4>;
  const moec::f16* const lhs[] = {lhs0};
  const moec::Coded<moec::e4m3, moec::bf16> rhs[] = {{codes0, scales0}};
  moec::multiply_by_warps<Tile>(shared, lhs, moec::Plan<3, 1, true>{offsets, slots, tokens}, rhs, t_product_fp8_e4m3_epilogue{out0});
}
