// t_quantise_rows: 256 threads, 0 bytes, DeviceGrid(per_multiprocessor=4), tokens (0, None)
// t_product_int4_few: 128 threads, 79884 bytes, DeviceGrid(per_multiprocessor=2), tokens (0, 384)
// t_product_int4: 256 threads, 93452 bytes, DeviceGrid(per_multiprocessor=1), tokens (384, None)
#include "moec/rowcodes.cuh"
#include "moec/matmul/warps.cuh"
MOEC_KERNEL(256, 4) t_quantise_rows(const moec::bf16* MOEC_RESTRICT rows, moec::i8* MOEC_RESTRICT codes, float* MOEC_RESTRICT scales, int tokens) {
  moec::quantise_rows<96>(rows, codes, scales, tokens * 1);
}

MOEC_DEVICE void t_product_int4_few_value(float a0, float (&out)[1]) {
  const float v0 = a0 + 0.0f;
  out[0] = v0;
}
struct t_product_int4_few_epilogue {
  using Out = moec::bf16;
  static constexpr int results = 1;
  const float* scales_of_rows;
  Out* out0;
  struct Row {
    float scale;
  };
  MOEC_DEVICE Row row(int row, int expert, int slot) const {
    return {scales_of_rows[slot / 1]};
  }
  MOEC_DEVICE void value(const Row& row, int column, const float (&sums)[1],
                         float (&out)[1]) const {
    t_product_int4_few_value(sums[0] * row.scale, out);
  }
  MOEC_DEVICE Out* to(int n) const {
    return out0;
  }
};

MOEC_KERNEL(128, 2) t_product_int4_few(const moec::i8* lhs0, const int* offsets, const int* slots, const moec::Packed<4, 8>* codes0, const moec::bf16* scales0, const float* scales_of_rows, moec::bf16* out0, int tokens) {
  MOEC_SHARED(shared);
  using Tile = moec::CodedTile<moec::i8, moec::Packed<4, 8>, moec::bf16, 32, 96, 16, 1, 16, 64, 12, 1, 4>;
  const moec::i8* const lhs[] = {lhs0};
  const moec::Coded<moec::Packed<4, 8>, moec::bf16> rhs[] = {{codes0, scales0}};
  moec::multiply_by_warps<Tile>(shared, lhs, moec::Plan<3, 1, true>{offsets, slots, tokens}, rhs, t_product_int4_few_epilogue{scales_of_rows, out0});
}

// t_product_int4: tile chosen by the cost model
MOEC_DEVICE void t_product_int4_value(float a0, float (&out)[1]) {
  const float v0 = a0 + 0.0f;
  out[0] = v0;
}
struct t_product_int4_epilogue {
  using Out = moec::bf16;
  static constexpr int results = 1;
  const float* scales_of_rows;
  Out* out0;
  struct Row {
    float scale;
  };
  MOEC_DEVICE Row row(int row, int expert, int slot) const {
    return {scales_of_rows[slot / 1]};
  }
  MOEC_DEVICE void value(const Row& row, int column, const float (&sums)[1],
                         float (&out)[1]) const {
    t_product_int4_value(sums[0] * row.scale, out);
  }
  MOEC_DEVICE Out* to(int n) const {
    return out0;
  }
};

MOEC_KERNEL(256, 1) t_product_int4(const moec::i8* lhs0, const int* offsets, const int* slots, const moec::Packed<4, 8>* codes0, const moec::bf16* scales0, const float* scales_of_rows, moec::bf16* out0, int tokens) {
  MOEC_SHARED(shared);
  using Tile = moec::CodedTile<moec::i8, moec::Packed<4, 8>, moec::bf16, 32, 96, 16, 1, 128, 32, 5, 2, 4>;
  const moec::i8* const lhs[] = {lhs0};
  const moec::Coded<moec::Packed<4, 8>, moec::bf16> rhs[] = {{codes0, scales0}};
  moec::multiply_by_warps<Tile>(shared, lhs, moec::Plan<3, 1, true>{offsets, slots, tokens}, rhs, t_product_int4_epilogue{scales_of_rows, out0});
}
