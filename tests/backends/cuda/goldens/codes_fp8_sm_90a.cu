// t_product_fp8_e4m3_few: 128 threads, 79884 bytes, DeviceGrid(per_multiprocessor=2), tokens (0, 384)
// t_product_fp8_e4m3: 384 threads, 98444 bytes, DeviceGrid(per_multiprocessor=1), tokens (384, None)
#include "moec/matmul/warps.cuh"
#include "moec/matmul/coded_warpgroups.cuh"
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
#if defined(__CUDACC__) && !defined(MOEC_WGMMA_F16_32_R)
#define MOEC_WGMMA_F16_32_R
template <>
MOEC_DEVICE void moec::wgmma_from_registers<moec::f16, 32>(
    float (&d)[16], const moec::u32 (&left)[4], moec::u64 right, bool accumulate) {
  asm volatile(
      "{\n.reg .pred more;\n"
      "setp.ne.b32 more, %21, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
      "}, {%16, %17, %18, %19}, %20, more, 1, 1, 0;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right), "r"((int)accumulate)
      : "memory");
}
#endif

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

MOEC_KERNEL(384, 1) t_product_fp8_e4m3(const moec::f16* lhs0, const int* offsets, const int* slots, const moec::e4m3* codes0, const moec::bf16* scales0, moec::f16* out0, int tokens) {
  MOEC_SHARED(shared);
  using Tile = moec::CodedWarpgroupTile<moec::f16, moec::e4m3, moec::bf16, 0, 64, 16, 1, 32, 8>;
  const moec::Coded<moec::e4m3, moec::bf16> weights[] = {{codes0, scales0}};
  moec::multiply_codes_by_warpgroups<Tile>(shared, lhs0, moec::Plan<3, 1, true>{offsets, slots, tokens}, weights, t_product_fp8_e4m3_epilogue{out0});
}
