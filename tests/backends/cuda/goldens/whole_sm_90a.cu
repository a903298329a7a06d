// t_quantise_rows: 256 threads, 0 bytes, DeviceGrid(per_multiprocessor=4), tokens (0, None)
// t_product_int8_few: 128 threads, 71692 bytes, DeviceGrid(per_multiprocessor=2), tokens (0, 384)
// t_product_int8: 384 threads, 221292 bytes, DeviceGrid(per_multiprocessor=1), tokens (384, None)
#include "moec/rowcodes.cuh"
#include "moec/matmul/warps.cuh"
#include "moec/matmul/coded_warpgroups.cuh"
MOEC_KERNEL(256, 4) t_quantise_rows(const moec::bf16* MOEC_RESTRICT rows, moec::i8* MOEC_RESTRICT codes, float* MOEC_RESTRICT scales, int tokens) {
  moec::quantise_rows<128>(rows, codes, scales, tokens * 1);
}

MOEC_DEVICE void t_product_int8_few_value(float a0, float a1, float (&out)[1]) {
  const float v0 = -a0;
  const float v1 = moec::approximate_exp(v0);
  const float v2 = v1 + 1.0f;
  const float v3 = moec::approximate_quotient(a0, v2);
  const float v4 = v3 * a1;
  out[0] = v4;
}
struct t_product_int8_few_epilogue {
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
  MOEC_DEVICE void value(const Row& row, int column, const float (&sums)[2],
                         float (&out)[1]) const {
    t_product_int8_few_value(sums[0] * row.scale, sums[1] * row.scale, out);
  }
  MOEC_DEVICE Out* to(int n) const {
    return out0;
  }
};

MOEC_KERNEL(128, 2) t_product_int8_few(const moec::i8* lhs0, const int* offsets, const int* slots, const moec::i8* codes0, const moec::i8* codes1, const float* scales0, const float* scales1, const float* scales_of_rows, moec::bf16* out0, int tokens) {
  MOEC_SHARED(shared);
  using Tile = moec::CodedTile<moec::i8, moec::i8, float, 0, 128, 16, 2, 16, 32, 7, 1, 4>;
  const moec::i8* const lhs[] = {lhs0};
  const moec::Coded<moec::i8, float> rhs[] = {{codes0, scales0}, {codes1, scales1}};
  moec::multiply_by_warps<Tile>(shared, lhs, moec::Plan<3, 1, true>{offsets, slots, tokens}, rhs, t_product_int8_few_epilogue{scales_of_rows, out0});
}

// t_product_int8: tile chosen by the cost model
#if defined(__CUDACC__) && !defined(MOEC_WGMMA_I8_32_R)
#define MOEC_WGMMA_I8_32_R
template <>
MOEC_DEVICE void moec::wgmma_from_registers<moec::i8, 32>(
    int (&d)[16], const moec::u32 (&left)[4], moec::u64 right, bool accumulate) {
  asm volatile(
      "{\n.reg .pred more;\n"
      "setp.ne.b32 more, %21, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k32.s32.s8.s8 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
      "}, {%16, %17, %18, %19}, %20, more;\n}\n"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]), "+r"(d[4]), "+r"(d[5]), "+r"(d[6]), "+r"(d[7]),
        "+r"(d[8]), "+r"(d[9]), "+r"(d[10]), "+r"(d[11]), "+r"(d[12]), "+r"(d[13]), "+r"(d[14]), "+r"(d[15])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right), "r"((int)accumulate)
      : "memory");
}
#endif

MOEC_DEVICE void t_product_int8_value(float a0, float a1, float (&out)[1]) {
  const float v0 = -a0;
  const float v1 = moec::approximate_exp(v0);
  const float v2 = v1 + 1.0f;
  const float v3 = moec::approximate_quotient(a0, v2);
  const float v4 = v3 * a1;
  out[0] = v4;
}
struct t_product_int8_epilogue {
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
  MOEC_DEVICE void value(const Row& row, int column, const float (&sums)[2],
                         float (&out)[1]) const {
    t_product_int8_value(sums[0] * row.scale, sums[1] * row.scale, out);
  }
  MOEC_DEVICE Out* to(int n) const {
    return out0;
  }
};

MOEC_KERNEL(384, 1) t_product_int8(const moec::i8* lhs0, const int* offsets, const int* slots, const moec::i8* codes0, const moec::i8* codes1, const float* scales0, const float* scales1, const float* scales_of_rows, moec::bf16* out0, int tokens) {
  MOEC_SHARED(shared);
  using Tile = moec::CodedWarpgroupTile<moec::i8, moec::i8, float, 0, 128, 16, 2, 32, 6>;
  const moec::Coded<moec::i8, float> weights[] = {{codes0, scales0}, {codes1, scales1}};
  moec::multiply_codes_by_warpgroups<Tile>(shared, lhs0, moec::Plan<3, 1, true>{offsets, slots, tokens}, weights, t_product_int8_epilogue{scales_of_rows, out0});
}
