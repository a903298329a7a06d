// t_product_few: 128 threads, 71700 bytes, DeviceGrid(per_multiprocessor=2), tokens (0, 320)
// t_product: 384 threads, 180372 bytes, DeviceGrid(per_multiprocessor=1), tokens (320, None)
#include "moec/matmul/warps.cuh"
#include "moec/matmul/warpgroups.cuh"
MOEC_DEVICE void t_product_few_value(float a0, float a1, float (&out)[1]) {
  const float v0 = -a0;
  const float v1 = moec::approximate_exp(v0);
  const float v2 = v1 + 1.0f;
  const float v3 = moec::approximate_quotient(a0, v2);
  const float v4 = v3 * a1;
  out[0] = v4;
}
struct t_product_few_epilogue {
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
    t_product_few_value(sums[0], sums[1], out);
  }
  MOEC_DEVICE Out* to(int n) const {
    return out0;
  }
};

MOEC_KERNEL(128, 2) t_product_few(const moec::bf16* lhs0, const int* offsets, const int* slots, const moec::bf16* weight0, const moec::bf16* weight1, moec::bf16* out0, int tokens) {
  MOEC_SHARED(shared);
  using Tile = moec::WarpTile<moec::bf16, 1, 136, 72, 2, 16, 32, 7, 1, 4, false>;
  const moec::bf16* const lhs[] = {lhs0};
  const moec::bf16* const rhs[] = {weight0, weight1};
  moec::multiply_by_warps<Tile>(shared, lhs, moec::Plan<5, 2, true>{offsets, slots, tokens}, rhs, t_product_few_epilogue{out0});
}

// t_product: tile chosen by the cost model
#if defined(__CUDACC__) && !defined(MOEC_WGMMA_BF16_48_00)
#define MOEC_WGMMA_BF16_48_00
template <>
MOEC_DEVICE void moec::wgmma<moec::bf16, 48, 0, 0>(
    float (&d)[24], moec::u64 left, moec::u64 right, bool accumulate) {
  asm volatile(
      "{\n.reg .pred more;\n"
      "setp.ne.b32 more, %26, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n48k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23"
      "}, %24, %25, more, 1, 1, 0, 0;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
        "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23])
      : "l"(left), "l"(right), "r"((int)accumulate)
      : "memory");
}
#endif

MOEC_DEVICE void t_product_value(float a0, float a1, float (&out)[1]) {
  const float v0 = -a0;
  const float v1 = moec::approximate_exp(v0);
  const float v2 = v1 + 1.0f;
  const float v3 = moec::approximate_quotient(a0, v2);
  const float v4 = v3 * a1;
  out[0] = v4;
}
struct t_product_epilogue {
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
    t_product_value(sums[0], sums[1], out);
  }
  MOEC_DEVICE Out* to(int n) const {
    return out0;
  }
};

MOEC_KERNEL(384, 1) t_product(const moec::bf16* lhs0, const int* offsets, const int* slots, MOEC_GRID_CONSTANT moec::TensorMap map0, MOEC_GRID_CONSTANT moec::TensorMap map1, moec::bf16* out0, int tokens) {
  MOEC_SHARED(shared);
  using Tile = moec::WarpgroupTile<moec::bf16, 1, 136, 72, 2, 24, 8, false>;
  const moec::bf16* const lhs[] = {lhs0};
  const moec::TensorMap* const maps[] = {&map0, &map1};
  moec::multiply_by_warpgroups<Tile>(shared, lhs, moec::Plan<5, 2, true>{offsets, slots, tokens}, maps, t_product_epilogue{out0});
}
