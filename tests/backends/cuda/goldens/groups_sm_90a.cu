// t_product_int4_few: 128 threads, 69644 bytes, DeviceGrid(per_multiprocessor=2), tokens (0, 192)
// t_product_int4: 384 threads, 106636 bytes, DeviceGrid(per_multiprocessor=1), tokens (192, None)
#include "moec/matmul/warps.cuh"
#include "moec/matmul/coded_warpgroups.cuh"
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
#if defined(__CUDACC__) && !defined(MOEC_WGMMA_BF16_32_R)
#define MOEC_WGMMA_BF16_32_R
template <>
MOEC_DEVICE void moec::wgmma_from_registers<moec::bf16, 32>(
    float (&d)[16], const moec::u32 (&left)[4], moec::u64 right, bool accumulate) {
  asm volatile(
      "{\n.reg .pred more;\n"
      "setp.ne.b32 more, %21, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
      "}, {%16, %17, %18, %19}, %20, more, 1, 1, 0;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right), "r"((int)accumulate)
      : "memory");
}
#endif

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

MOEC_KERNEL(384, 1) t_product_int4(const moec::bf16* lhs0, const int* offsets, const int* slots, const moec::Packed<4, 8>* codes0, const moec::Packed<4, 8>* codes1, const moec::bf16* scales0, const moec::bf16* scales1, moec::bf16* out0, int tokens) {
  MOEC_SHARED(shared);
  using Tile = moec::CodedWarpgroupTile<moec::bf16, moec::Packed<4, 8>, moec::bf16, 32, 224, 75, 2, 32, 8>;
  const moec::Coded<moec::Packed<4, 8>, moec::bf16> weights[] = {{codes0, scales0}, {codes1, scales1}};
  moec::multiply_codes_by_warpgroups<Tile>(shared, lhs0, moec::Plan<3, 2, true>{offsets, slots, tokens}, weights, t_product_int4_epilogue{out0});
}
