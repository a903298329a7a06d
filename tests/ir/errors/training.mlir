// ERROR: the body must yield tensor<3xf32>, not tensor<4xf32>
func.func @f(%x: tensor<?x4xf32>) -> tensor<?x3xf32> {
  %y = "moe.map"(%x) ({
    %row = "moe.row"(%x) : (tensor<?x4xf32>) -> tensor<4xf32>
    "moe.yield"(%row) : (tensor<4xf32>) -> ()
  }) : (tensor<?x4xf32>) -> tensor<?x3xf32>
  return %y : tensor<?x3xf32>
}
// -----
// ERROR: the result must be tensor<4x3x5x...>
func.func @f(%a: tensor<?x3xf32>, %b: tensor<?x5xf32>, %o: tensor<5xi32>, %s: tensor<?xi32>) {
  "moe.weight_gradient"(%a, %b, %o, %s) {gather_a = true, gather_b = false, slots_per_token = 2 : i64} : (tensor<?x3xf32>, tensor<?x5xf32>, tensor<5xi32>, tensor<?xi32>) -> tensor<4x5x3xf32>
  return
}
// -----
// ERROR: slots_per_token must be at least 1
func.func @f(%a: tensor<?x3xf32>, %b: tensor<?x5xf32>, %o: tensor<5xi32>, %s: tensor<?xi32>) {
  "moe.weight_gradient"(%a, %b, %o, %s) {gather_a = true, gather_b = false, slots_per_token = 0 : i64} : (tensor<?x3xf32>, tensor<?x5xf32>, tensor<5xi32>, tensor<?xi32>) -> tensor<4x3x5xf32>
  return
}
// -----
// ERROR: the result must be tensor<1x3x5x...>
func.func @f(%a: tensor<?x3xf32>, %b: tensor<?x5xf32>) {
  "moe.dense_weight_gradient"(%a, %b) : (tensor<?x3xf32>, tensor<?x5xf32>) -> tensor<2x3x5xf32>
  return
}
// -----
// ERROR: factor must hold f32, not bf16
func.func @f(%a: tensor<?x3xbf16>, %f: tensor<?x1xbf16>, %o: tensor<5xi32>, %s: tensor<?xi32>) {
  "moe.group_sum"(%a, %o, %s, %f) {gather = false, operandSegmentSizes = array<i32: 1, 1, 1, 1>, slots_per_token = 2 : i64} : (tensor<?x3xbf16>, tensor<5xi32>, tensor<?xi32>, tensor<?x1xbf16>) -> tensor<4x3xbf16>
  return
}
// -----
// ERROR: rows must be tensor<?x1x...>
func.func @f(%r: tensor<?x2xf32>, %s: tensor<?xi32>, %t: tensor<?x2xi32>) {
  "moe.slot_values"(%r, %s, %t) : (tensor<?x2xf32>, tensor<?xi32>, tensor<?x2xi32>) -> tensor<?x2xf32>
  return
}
// -----
// ERROR: the number of experts must be static
func.func @f(%i: tensor<?x2xi32>) {
  "moe.count"(%i) : (tensor<?x2xi32>) -> tensor<?xi32>
  return
}
// -----
// ERROR: values must be tensor<2x...>
func.func @f(%v: tensor<3xf32>, %i: tensor<2xi32>) {
  "moe.put"(%v, %i) : (tensor<3xf32>, tensor<2xi32>) -> tensor<6xf32>
  return
}
// -----
// ERROR: weights must be tensor<2x4x5x...>, not tensor<2x3x5xf32>
func.func @f(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %s: tensor<?xi32>, %w: tensor<2x3x5xf32>) {
  "moe.grouped_matmul"(%x, %o, %s, %w) ({
  ^bb0(%a: f32):
    "moe.yield"(%a) : (f32) -> ()
  }) {gather = true, operandSegmentSizes = array<i32: 1, 1, 1, 1>, slots_per_token = 1 : i64, transposed} : (tensor<?x4xf32>, tensor<3xi32>, tensor<?xi32>, tensor<2x3x5xf32>) -> tensor<?x3xf32>
  return
}
// -----
// ERROR: the epilogue must yield f32, f32, not f32
func.func @f(%x: tensor<?x4xf32>, %w: tensor<1x3x4xf32>) {
  %y, %z = "moe.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    "moe.yield"(%a) : (f32) -> ()
  }) {operandSegmentSizes = array<i32: 1, 1>} : (tensor<?x4xf32>, tensor<1x3x4xf32>) -> (tensor<?x3xf32>, tensor<?x3xf32>)
  return
}
