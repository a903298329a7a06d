// ERROR: direct_max_tokens must not be negative
func.func @f(%i: tensor<?x1xi32>) {
  "moe.plan"(%i) {experts = 4 : i64, direct_max_tokens = -1 : i64} : (tensor<?x1xi32>) -> (tensor<5xi32>, tensor<?xi32>)
  return
}
// -----
// ERROR: a dense product has one expert, not 2
func.func @f(%x: tensor<?x4xf32>, %w: tensor<2x3x4xf32>) {
  "moe.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    "moe.yield"(%a) : (f32) -> ()
  }) {operandSegmentSizes = array<i32: 1, 1>} : (tensor<?x4xf32>, tensor<2x3x4xf32>) -> tensor<?x3xf32>
  return
}
// -----
// ERROR: weights must be tensor<1x3x4x...>
func.func @f(%x: tensor<?x4xf32>, %w: tensor<1x3x5xf32>) {
  "moe.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    "moe.yield"(%a) : (f32) -> ()
  }) {operandSegmentSizes = array<i32: 1, 1>} : (tensor<?x4xf32>, tensor<1x3x5xf32>) -> tensor<?x3xf32>
  return
}
// -----
// ERROR: the epilogue must yield bf16, not f32
func.func @f(%x: tensor<?x4xf32>, %w: tensor<1x3x4xf32>) {
  "moe.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    "moe.yield"(%a) : (f32) -> ()
  }) {operandSegmentSizes = array<i32: 1, 1>} : (tensor<?x4xf32>, tensor<1x3x4xf32>) -> tensor<?x3xbf16>
  return
}
// -----
// ERROR: kind must be one of row, scalar, token
func.func @f(%x: tensor<?x4xf32>) {
  "moe.element"(%x) {kind = "diagonal"} : (tensor<?x4xf32>) -> f32
  return
}
// -----
// ERROR: an element of kind 'column' must be tensor<2x3x...>
func.func @f(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %s: tensor<?xi32>, %w: tensor<2x3x4xf32>, %b: tensor<1x3xf32>) {
  "moe.grouped_matmul"(%x, %o, %s, %w) ({
  ^bb0(%a: f32):
    %e = "moe.element"(%b) {kind = "column"} : (tensor<1x3xf32>) -> f32
    "moe.yield"(%e) : (f32) -> ()
  }) {operandSegmentSizes = array<i32: 1, 1, 1, 1>, gather = true, slots_per_token = 2 : i64} : (tensor<?x4xf32>, tensor<3xi32>, tensor<?xi32>, tensor<2x3x4xf32>) -> tensor<?x3xf32>
  return
}
// -----
// ERROR: an element here must be one of token, token_scalar, not 'row'
func.func @f(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %s: tensor<?xi32>, %w: tensor<2x3x4xf32>, %r: tensor<?x3xf32>) {
  "moe.grouped_matmul_combine"(%x, %x, %o, %s, %w) ({
  ^bb0(%a: f32):
    "moe.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    %e = "moe.element"(%r) {kind = "row"} : (tensor<?x3xf32>) -> f32
    "moe.yield"(%e) : (f32) -> ()
  }) {operandSegmentSizes = array<i32: 1, 1, 1, 1, 1>, gather = true, slots_per_token = 2 : i64} : (tensor<?x4xf32>, tensor<?x4xf32>, tensor<3xi32>, tensor<?xi32>, tensor<2x3x4xf32>) -> tensor<?x3xf32>
  return
}
// -----
// ERROR: lacks an attribute or operand
func.func @f(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %s: tensor<?xi32>, %w: tensor<2x3x4xf32>) {
  "moe.grouped_matmul"(%x, %o, %s, %w) ({
  ^bb0(%a: f32):
    "moe.yield"(%a) : (f32) -> ()
  }) {operandSegmentSizes = array<i32: 1, 1, 1, 1>, gather = true} : (tensor<?x4xf32>, tensor<3xi32>, tensor<?xi32>, tensor<2x3x4xf32>) -> tensor<?x3xf32>
  return
}
