// t_product_dots: 256 threads, 0 bytes, DeviceGrid(per_multiprocessor=2), tokens (0, 65)
// t_product_split: 256 threads, 98304 bytes, DeviceGrid(per_multiprocessor=1), tokens (65, None)
#include "moec/matmul/dots.cuh"
#include "moec/matmul/split.cuh"
MOEC_DEVICE void t_product_dots_value(float a0, float (&out)[1]) {
  const float v0 = a0 + 0.0f;
  out[0] = v0;
}
struct t_product_dots_epilogue {
  using Out = float;
  static constexpr int results = 1;
  Out* out0;
  struct Row {
  };
  MOEC_DEVICE Row row(int row, int expert, int slot) const {
    return {};
  }
  MOEC_DEVICE void value(const Row& row, int column, const float (&sums)[1],
                         float (&out)[1]) const {
    t_product_dots_value(sums[0], out);
  }
  MOEC_DEVICE Out* to(int n) const {
    return out0;
  }
};

MOEC_KERNEL(256, 2) t_product_dots(const moec::bf16* lhs0, const float* weight0, float* out0, int tokens) {
  using Tile = moec::DotTile<moec::bf16, float, 64, 8, 1>;
  const float* const rhs[] = {weight0};
  moec::multiply_by_dots<Tile>(lhs0, tokens, rhs, t_product_dots_epilogue{out0});
}

MOEC_DEVICE void t_product_split_value(float a0, float (&out)[1]) {
  const float v0 = a0 + 0.0f;
  out[0] = v0;
}
struct t_product_split_epilogue {
  using Out = float;
  static constexpr int results = 1;
  Out* out0;
  struct Row {
  };
  MOEC_DEVICE Row row(int row, int expert, int slot) const {
    return {};
  }
  MOEC_DEVICE void value(const Row& row, int column, const float (&sums)[1],
                         float (&out)[1]) const {
    t_product_split_value(sums[0], out);
  }
  MOEC_DEVICE Out* to(int n) const {
    return out0;
  }
};

MOEC_KERNEL(256, 1) t_product_split(const moec::bf16* lhs0, const float* weight0, float* out0, int tokens) {
  MOEC_SHARED(shared);
  using Tile = moec::SplitTile<64, 8, 3>;
  moec::multiply_by_split<Tile>(shared, lhs0, moec::Plan<0, 1, false>{nullptr, nullptr, tokens}, weight0, t_product_split_epilogue{out0});
}
