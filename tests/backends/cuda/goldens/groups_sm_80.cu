// t_product_int4_few: 128 threads, 69644 bytes, DeviceGrid(per_multiprocessor=2), tokens (0, 192)
// t_product_int4: 256 threads, 93452 bytes, DeviceGrid(per_multiprocessor=1), tokens (192, None)
#include "moec/matmul/warps.cuh"
MOEC_DEVICE void t_product_int4_few_value(float a0, float a1, float (&out)[1]) {
  const float v0 = -a0;
  const float v1 = moec::approximate_exp(v0);
  const float v2 = v1 + 1.0f;
  const float v3 = moec::approximate_quotient(a0, v2);
  const float v4 = v3 * a1;
  out[0] = v4;
}
struct t_product_int4_few_epilogue {
  using Out = moec::bf16;
  static constexpr int results = 1;
  Out* out0;
  struct Row {
  };
  MOEC_DEVICE Row row(int row, int expert, int slot) const {
    return {};
  }
  MOEC_DEVICE void value(const Row& row, int column, const float (&sums)[2],
                         float (&out)[1]) const {
    t_product_int4_few_value(sums[0], sums[1], out);
  }
  MOEC_DEVICE Out* to(int n) const {
    return out0;
  }
};

MOEC_KERNEL(128, 2) t_product_int4_few(const moec::bf16* lhs0, const int* offsets, const int* slots, const moec::Packed<4, 8>* codes0, const moec::Packed<4, 8>* codes1, const moec::bf16* scales0, const moec::bf16* scales1, moec::bf16* out0, int tokens) {
  MOEC_SHARED(shared);
  using Tile = moec::CodedTile<moec::bf16, moec::Packed<4, 8>, moec::bf16, 32, 224, 75, 2, 16, 32, 16, 1, 4>;
  const moec::bf16* const lhs[] = {lhs0};
  const moec::Coded<moec::Packed<4, 8>, moec::bf16> rhs[] = {{codes0, scales0}, {codes1, scales1}};
  moec::multiply_by_warps<Tile>(shared, lhs, moec::Plan<3, 2, true>{offsets, slots, tokens}, rhs, t_product_int4_few_epilogue{out0});
}

// t_product_int4: tile chosen by the cost model
MOEC_DEVICE void t_product_int4_value(float a0, float a1, float (&out)[1]) {
  const float v0 = -a0;
  const float v1 = moec::approximate_exp(v0);
  const float v2 = v1 + 1.0f;
  const float v3 = moec::approximate_quotient(a0, v2);
  const float v4 = v3 * a1;
  out[0] = v4;
}
struct t_product_int4_epilogue {
  using Out = moec::bf16;
  static constexpr int results = 1;
  Out* out0;
  struct Row {
  };
  MOEC_DEVICE Row row(int row, int expert, int slot) const {
    return {};
  }
  MOEC_DEVICE void value(const Row& row, int column, const float (&sums)[2],
                         float (&out)[1]) const {
    t_product_int4_value(sums[0], sums[1], out);
  }
  MOEC_DEVICE Out* to(int n) const {
    return out0;
  }
};

MOEC_KERNEL(256, 1) t_product_int4(const moec::bf16* lhs0, const int* offsets, const int* slots, const moec::Packed<4, 8>* codes0, const moec::Packed<4, 8>* codes1, const moec::bf16* scales0, const moec::bf16* scales1, moec::bf16* out0, int tokens) {
  MOEC_SHARED(shared);
  using Tile = moec::CodedTile<moec::bf16, moec::Packed<4, 8>, moec::bf16, 32, 224, 75, 2, 128, 32, 5, 2, 4>;
  const moec::bf16* const lhs[] = {lhs0};
  const moec::Coded<moec::Packed<4, 8>, moec::bf16> rhs[] = {{codes0, scales0}, {codes1, scales1}};
  moec::multiply_by_warps<Tile>(shared, lhs, moec::Plan<3, 2, true>{offsets, slots, tokens}, rhs, t_product_int4_epilogue{out0});
}
