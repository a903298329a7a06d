// ERROR: part must be 2 experts of the plan, in order
func.func @join(%x: tensor<?x4xf32>, %i: tensor<?x1xi32>, %a: tensor<2x8x4xf32>, %b: tensor<1x8x4xf32>) {
  %o, %s = "moe.plan"(%i) {experts = 3 : i64, direct_max_tokens = 0 : i64} : (tensor<?x1xi32>) -> (tensor<4xi32>, tensor<?xi32>)
  %p = "moe.grouped_matmul"(%x, %o, %s, %a) ({
  ^bb0(%v: f32):
    "moe.yield"(%v) : (f32) -> ()
  }) {gather = true, operandSegmentSizes = array<i32: 1, 1, 1, 1>, part = array<i32: 2, 0>, slots_per_token = 1 : i64}
    : (tensor<?x4xf32>, tensor<4xi32>, tensor<?xi32>, tensor<2x8x4xf32>) -> tensor<?x8xf32>
  return
}
// -----
// ERROR: part must be 2 experts of the plan, in order
func.func @join(%x: tensor<?x4xf32>, %i: tensor<?x1xi32>, %a: tensor<2x8x4xf32>, %b: tensor<1x8x4xf32>) {
  %o, %s = "moe.plan"(%i) {experts = 3 : i64, direct_max_tokens = 0 : i64} : (tensor<?x1xi32>) -> (tensor<4xi32>, tensor<?xi32>)
  %p = "moe.grouped_matmul"(%x, %o, %s, %a) ({
  ^bb0(%v: f32):
    "moe.yield"(%v) : (f32) -> ()
  }) {gather = true, operandSegmentSizes = array<i32: 1, 1, 1, 1>, part = array<i32: 1, 3>, slots_per_token = 1 : i64}
    : (tensor<?x4xf32>, tensor<4xi32>, tensor<?xi32>, tensor<2x8x4xf32>) -> tensor<?x8xf32>
  return
}
// -----
// ERROR: part must be 1 experts of the plan, in order
func.func @join(%x: tensor<?x4xf32>, %i: tensor<?x1xi32>, %a: tensor<2x8x4xf32>, %b: tensor<1x8x4xf32>) {
  %o, %s = "moe.plan"(%i) {experts = 3 : i64, direct_max_tokens = 0 : i64} : (tensor<?x1xi32>) -> (tensor<4xi32>, tensor<?xi32>)
  %p = "moe.grouped_matmul"(%x, %o, %s, %b) ({
  ^bb0(%v: f32):
    "moe.yield"(%v) : (f32) -> ()
  }) {gather = true, operandSegmentSizes = array<i32: 1, 1, 1, 1>, part = array<i32: 0, 1>, slots_per_token = 1 : i64}
    : (tensor<?x4xf32>, tensor<4xi32>, tensor<?xi32>, tensor<1x8x4xf32>) -> tensor<?x8xf32>
  return
}
// -----
// ERROR: the products must have each expert of the plan once
func.func @join(%x: tensor<?x4xf32>, %i: tensor<?x1xi32>, %a: tensor<2x8x4xf32>, %b: tensor<1x8x4xf32>) {
  %o, %s = "moe.plan"(%i) {experts = 3 : i64, direct_max_tokens = 0 : i64} : (tensor<?x1xi32>) -> (tensor<4xi32>, tensor<?xi32>)
  %p = "moe.grouped_matmul"(%x, %o, %s, %a) ({
  ^bb0(%v: f32):
    "moe.yield"(%v) : (f32) -> ()
  }) {gather = true, operandSegmentSizes = array<i32: 1, 1, 1, 1>, part = array<i32: 0, 1>, slots_per_token = 1 : i64}
    : (tensor<?x4xf32>, tensor<4xi32>, tensor<?xi32>, tensor<2x8x4xf32>) -> tensor<?x8xf32>
  %q = "moe.grouped_matmul"(%x, %o, %s, %b) ({
  ^bb0(%v: f32):
    "moe.yield"(%v) : (f32) -> ()
  }) {gather = true, operandSegmentSizes = array<i32: 1, 1, 1, 1>, part = array<i32: 1>, slots_per_token = 1 : i64}
    : (tensor<?x4xf32>, tensor<4xi32>, tensor<?xi32>, tensor<1x8x4xf32>) -> tensor<?x8xf32>
  %j = "moe.join_rows"(%o, %p, %q) {operandSegmentSizes = array<i32: 1, 2>}
    : (tensor<4xi32>, tensor<?x8xf32>, tensor<?x8xf32>) -> tensor<?x8xf32>
  return
}
// -----
// ERROR: the products must have each expert of the plan once
func.func @join(%x: tensor<?x4xf32>, %i: tensor<?x1xi32>, %a: tensor<2x8x4xf32>, %b: tensor<1x8x4xf32>) {
  %o, %s = "moe.plan"(%i) {experts = 3 : i64, direct_max_tokens = 0 : i64} : (tensor<?x1xi32>) -> (tensor<4xi32>, tensor<?xi32>)
  %p = "moe.grouped_matmul"(%x, %o, %s, %a) ({
  ^bb0(%v: f32):
    "moe.yield"(%v) : (f32) -> ()
  }) {gather = true, operandSegmentSizes = array<i32: 1, 1, 1, 1>, part = array<i32: 0, 1>, slots_per_token = 1 : i64}
    : (tensor<?x4xf32>, tensor<4xi32>, tensor<?xi32>, tensor<2x8x4xf32>) -> tensor<?x8xf32>
  %j = "moe.join_rows"(%o, %p) {operandSegmentSizes = array<i32: 1, 1>}
    : (tensor<4xi32>, tensor<?x8xf32>) -> tensor<?x8xf32>
  return
}
// -----
// ERROR: rows 1 must be those of a product of the same plan
func.func @join(%x: tensor<?x4xf32>, %i: tensor<?x1xi32>, %a: tensor<2x8x4xf32>, %b: tensor<1x8x4xf32>) {
  %o, %s = "moe.plan"(%i) {experts = 3 : i64, direct_max_tokens = 0 : i64} : (tensor<?x1xi32>) -> (tensor<4xi32>, tensor<?xi32>)
  %p = "moe.grouped_matmul"(%x, %o, %s, %a) ({
  ^bb0(%v: f32):
    "moe.yield"(%v) : (f32) -> ()
  }) {gather = true, operandSegmentSizes = array<i32: 1, 1, 1, 1>, part = array<i32: 0, 1>, slots_per_token = 1 : i64}
    : (tensor<?x4xf32>, tensor<4xi32>, tensor<?xi32>, tensor<2x8x4xf32>) -> tensor<?x8xf32>
  %q = "moe.quantize_rows"(%p) : (tensor<?x8xf32>) -> tensor<?x8xf32>
  %j = "moe.join_rows"(%o, %p, %q) {operandSegmentSizes = array<i32: 1, 2>}
    : (tensor<4xi32>, tensor<?x8xf32>, tensor<?x8xf32>) -> tensor<?x8xf32>
  return
}
// -----
// ERROR: the result must be tensor<?x8x...>
func.func @join(%x: tensor<?x4xf32>, %i: tensor<?x1xi32>, %a: tensor<2x8x4xf32>, %b: tensor<1x8x4xf32>) {
  %o, %s = "moe.plan"(%i) {experts = 3 : i64, direct_max_tokens = 0 : i64} : (tensor<?x1xi32>) -> (tensor<4xi32>, tensor<?xi32>)
  %p = "moe.grouped_matmul"(%x, %o, %s, %a) ({
  ^bb0(%v: f32):
    "moe.yield"(%v) : (f32) -> ()
  }) {gather = true, operandSegmentSizes = array<i32: 1, 1, 1, 1>, part = array<i32: 0, 1>, slots_per_token = 1 : i64}
    : (tensor<?x4xf32>, tensor<4xi32>, tensor<?xi32>, tensor<2x8x4xf32>) -> tensor<?x8xf32>
  %q = "moe.grouped_matmul"(%x, %o, %s, %b) ({
  ^bb0(%v: f32):
    "moe.yield"(%v) : (f32) -> ()
  }) {gather = true, operandSegmentSizes = array<i32: 1, 1, 1, 1>, part = array<i32: 2>, slots_per_token = 1 : i64}
    : (tensor<?x4xf32>, tensor<4xi32>, tensor<?xi32>, tensor<1x8x4xf32>) -> tensor<?x8xf32>
  %j = "moe.join_rows"(%o, %p, %q) {operandSegmentSizes = array<i32: 1, 2>}
    : (tensor<4xi32>, tensor<?x8xf32>, tensor<?x8xf32>) -> tensor<?x8xf32>
  %y = "moe.sum_rows"(%j, %x, %o, %s) ({
  ^bb0(%v: f32):
    "moe.yield"(%v) : (f32) -> ()
  }) {slots_per_token = 1 : i64} : (tensor<?x8xf32>, tensor<?x4xf32>, tensor<4xi32>, tensor<?xi32>) -> tensor<?x4xf32>
  return
}
